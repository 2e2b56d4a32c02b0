"""The processes of the program in a pane."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from torch_tasks.system.processes import kill_each
from torch_tasks.workers.tmux.pane import PaneLook

_BOX = "bwrap"
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "ash"})


def leader_of(look: PaneLook) -> psutil.Process:
    """The program in the pane, in its box if it has one; psutil.NoSuchProcess if it is gone."""
    process = psutil.Process(look.pid)
    while process.name() == _BOX and (inside := process.children()):
        # What lost its parent in the box comes to the same place, later.
        process = min(inside, key=lambda one: (one.create_time(), one.pid))
    return process


def numbers_in_box(process: psutil.Process) -> Iterator[int]:
    """The numbers of the process and of all that it started, as these know them themselves."""
    return (number for _, number in _numbered(process))


def find_in_box(look: PaneLook, number: int) -> psutil.Process:
    """The pane's process that knows itself by this number; psutil.NoSuchProcess if there is none."""
    for process, own in _numbered(psutil.Process(look.pid)):
        if own == number:
            return process
    raise psutil.NoSuchProcess(number)


def _numbered(process: psutil.Process) -> Iterator[tuple[psutil.Process, int]]:
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{one.pid}/status").read_text()
            found = next((line for line in status.splitlines() if line.startswith("NSpid:")), f"NSpid: {one.pid}")
            yield one, int(found.split()[-1])


def is_left_to_a_shell(look: PaneLook) -> bool:
    """Whether only a shell is left in the pane, which would run the next prompt."""
    if look.command not in _SHELLS:
        return False
    try:
        leader = leader_of(look)
        return leader.name() in _SHELLS and not leader.children()
    except psutil.NoSuchProcess:
        return True


def kill_program(look: PaneLook) -> None:
    """Kill the pane's program with all its children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(look.pid)
        kill_each((leader, *leader.children(recursive=True)))


#: Where the time of its start and the address of its stack stand in ``/proc/<pid>/stat``, after its name.
_STARTED, _STACK = 19, 25


def run_of(look: PaneLook) -> str:
    """The run of the program in the pane: another after it was started anew, also in the same process; else empty.

    A shell that started it is not the program.
    """
    with contextlib.suppress(psutil.Error, OSError, IndexError):
        leader = leader_of(look)
        children = leader.children() if leader.name() in _SHELLS else []
        pid = children[0].pid if children else leader.pid
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{pid} {fields[_STARTED]} {fields[_STACK]}"
    return ""
