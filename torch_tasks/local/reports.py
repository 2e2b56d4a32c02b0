"""What an agent itself reports of its task: one file per report, beside those of its program's hooks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from torch_tasks.local.bells import ring

DONE, FAIL, PROGRESS = "torch.done", "torch.fail", "torch.progress"


def report(agent_folder: Path, name: str, task: str, text: str) -> None:
    """Write the report, whole or not at all, and wake the agent's worker; OSError if the disk does not take it."""
    events = agent_folder / "events"
    at = time.time_ns() // 1_000_000
    file = f"{at}-{os.getpid():010d}-{name}.json"
    told: dict[str, Any] = {"name": name, "at": at, "input": {"task": task, "text": text}}
    draft = events / f".{file}"
    draft.write_text(json.dumps(told) + "\n")
    draft.replace(events / file)
    ring(agent_folder)
