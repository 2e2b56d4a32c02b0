"""What a command knows of the pane that it runs in."""

from __future__ import annotations

import json
import os
from pathlib import Path


def own_task() -> str | None:
    """The task that this pane's agent works on; nothing outside a pane."""
    agent, state = os.environ.get("TORCH_AGENT_ID"), os.environ.get("TORCH_STATE_DIR")
    if task := os.environ.get("TORCH_TASK_ID"):
        return task
    if not agent or not state:
        return None
    try:  # a coding agent's program outlives the task that it was started for: its environment cannot tell
        journal = json.loads((Path(state) / "agents" / agent / "journal.json").read_bytes())
    except (OSError, ValueError):
        return None
    task = (journal.get("current") or {}).get("task_id")
    return str(task) if task else None
