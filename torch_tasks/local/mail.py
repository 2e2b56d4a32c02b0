"""An agent's mail on its own machine: messages that its worker gets without the broker."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

from torch_tasks.local.bells import ring
from torch_tasks.local.files import make_folder, write_private


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
