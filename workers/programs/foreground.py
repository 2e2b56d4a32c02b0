"""The program in a pane as a process: whether it left a shell there, and its end by force."""

from __future__ import annotations

from contextlib import suppress

import psutil

from torch_tasks.workers.tmux.pane import PaneLook

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "ash"})


def is_left_to_a_shell(look: PaneLook) -> bool:
    """Nothing but a shell is in the pane, because the program ended or became one: it would run the next prompt."""
    if look.command not in _SHELLS:
        return False
    try:
        leader = psutil.Process(look.pid)
        return leader.name() in _SHELLS and not leader.children()
    except psutil.NoSuchProcess:
        return True


def kill_program(look: PaneLook) -> None:
    """Kill what the pane was started with, and all that it started."""
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(look.pid)
        for process in (leader, *leader.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
