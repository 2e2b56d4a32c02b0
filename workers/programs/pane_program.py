"""The processes of the program in a pane."""

from __future__ import annotations

import contextlib

import psutil

from torch_tasks.workers.tmux.pane import PaneLook

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "ash"})


def is_left_to_a_shell(look: PaneLook) -> bool:
    """Whether only a shell is left in the pane, which would run the next prompt."""
    if look.command not in _SHELLS:
        return False
    try:
        leader = psutil.Process(look.pid)
        return leader.name() in _SHELLS and not leader.children()
    except psutil.NoSuchProcess:
        return True


def kill_program(look: PaneLook) -> None:
    """Kill the pane's program with all its children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(look.pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
