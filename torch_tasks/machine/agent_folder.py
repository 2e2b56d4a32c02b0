"""What other processes of its machine leave in an agent's folder for its worker: mail, orders to retire, reports."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from torch_tasks.errors import RefusedInPane
from torch_tasks.model.agent import RetireOrder
from torch_tasks.state_folder import EVENTS, HOST_LOCK, JOURNAL, MAIL, RETIRE_ORDER, StateFolder
from torch_tasks.system.files import make_folder, ring, write_private

DONE, FAIL, PROGRESS = "torch.done", "torch.fail", "torch.progress"
"""The reports that an agent may make on its task."""


def is_hosted(folder: Path) -> bool:
    """Whether a living worker of this machine hosts the agent of this folder."""
    try:
        with (folder / HOST_LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def agent_worker_name(agent_id: str) -> str:
    """The name under which a node worker keeps the agent's worker among this machine's processes."""
    return f"agent-{agent_id}"


def agent_around(state: StateFolder) -> str | None:
    """The agent of this state folder in whose pane this process runs, also if its environment does not say so."""
    named = os.environ.get("TORCH_AGENT_ID")
    ancestors = {os.getsid(0), *(parent.pid for parent in psutil.Process().parents())}
    for folder in state.agents():
        leader = _session_leader(folder)
        if leader and (folder.name == named or (leader in ancestors and _is_of(leader, folder.name))):
            return folder.name
    return None


def refuse_in_pane(state: StateFolder, command: str) -> None:
    """Raise :class:`RefusedInPane` if this process runs in the pane of an agent of this state folder."""
    if agent := agent_around(state):
        raise RefusedInPane(f"'torch-tasks {command}' is not for an agent, and this is the pane of {agent}")


def _session_leader(folder: Path) -> int | None:
    """The process that the agent's pane was started with."""
    with suppress(OSError, ValueError, AttributeError):
        leader = json.loads((folder / JOURNAL).read_bytes()).get("session")
        return leader if isinstance(leader, int) else None
    return None


def _is_of(pid: int, agent_id: str) -> bool:
    """Whether this process belongs to the agent; its number may be another one's by now."""
    with suppress(psutil.Error):
        return psutil.Process(pid).environ().get("TORCH_AGENT_ID") == agent_id
    return False


def put_mail(folder: Path, message_id: str, text: str) -> None:
    """Leave a message for the agent's worker, whole or not at all, behind the earlier ones."""
    mail = folder / MAIL
    make_folder(mail)
    write_private(mail / f"{time.time_ns():020d}-{message_id}.json", text + "\n")
    ring(folder)


def mail_in(folder: Path) -> list[Path]:
    """The files of the messages left for the agent's worker, in their order."""
    return sorted((folder / MAIL).glob("*.json"))


def write_retire_order(folder: Path, order: RetireOrder) -> None:
    """Order the agent to retire, in place of an earlier order."""
    make_folder(folder)
    write_private(folder / RETIRE_ORDER, order.model_dump_json() + "\n")


def retire_order_in(folder: Path) -> RetireOrder | None:
    """The order that the agent has not carried out yet."""
    try:
        return RetireOrder.model_validate_json((folder / RETIRE_ORDER).read_bytes())
    except FileNotFoundError:
        return None


def remove_retire_order(folder: Path) -> None:
    (folder / RETIRE_ORDER).unlink(missing_ok=True)


def agents_to_retire(state: StateFolder) -> list[str]:
    """The agents of this machine with an order to retire."""
    return [folder.name for folder in state.agents() if (folder / RETIRE_ORDER).exists()]


def report(folder: Path, name: str, task: str, text: str, report_id: str) -> None:
    """Write an agent's report once, whole or not at all, and wake its worker; OSError if it cannot be written."""
    if not any((folder / EVENTS).rglob(f"*-{report_id}-*.json")):
        write_event(folder, name, {"task": task, "text": text}, at=time.time_ns() // 1_000_000, event_id=report_id)


def write_event(folder: Path, name: str, given: Mapping[str, Any], *, at: int, event_id: str = "") -> None:
    """Write what happened in the agent's program at this millisecond, whole or not at all, and wake its worker."""
    events = folder / EVENTS
    file = f"{at}-{event_id or f'{os.getpid():010d}'}-{name}.json"
    draft = events / f".{file}"
    draft.write_text(json.dumps({"name": name, "at": at, "input": given}) + "\n")
    draft.replace(events / file)
    ring(folder)
