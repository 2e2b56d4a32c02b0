"""What other processes of a machine leave in an agent's folder: mail, an order to retire, reports of its program."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from torch_tasks.model.agent import RetireOrder
from torch_tasks.system.files import make_folder, ring, write_private


def hand_over(agent_folder: Path, message_id: str, text: str) -> None:
    """Have the agent's worker find the message, whole or not at all, behind those that came before."""
    mail = agent_folder / "mail"
    make_folder(mail)
    write_private(mail / f"{time.time_ns():020d}-{message_id}.json", text + "\n")
    ring(agent_folder)


def mail_of(agent_folder: Path) -> list[Path]:
    """What lies there, in its order."""
    return sorted((agent_folder / "mail").glob("*.json"))


def is_hosted(folder: Path) -> bool:
    """A living worker of this machine hosts the agent of this folder."""
    try:
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


_FILE = "retire.json"


def write_order(agent_folder: Path, order: RetireOrder) -> None:
    """Have it stand; what was ordered before is void."""
    make_folder(agent_folder)
    write_private(agent_folder / _FILE, order.model_dump_json() + "\n")


def order_in(agent_folder: Path) -> RetireOrder | None:
    """What was ordered, if anything was."""
    try:
        return RetireOrder.model_validate_json((agent_folder / _FILE).read_bytes())
    except FileNotFoundError:
        return None


def drop_order(agent_folder: Path) -> None:
    """It was carried out."""
    (agent_folder / _FILE).unlink(missing_ok=True)


def ordered(state_dir: Path) -> list[str]:
    """The agents of this machine that are to retire."""
    return sorted(file.parent.name for file in state_dir.glob(f"agents/*/{_FILE}"))


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
