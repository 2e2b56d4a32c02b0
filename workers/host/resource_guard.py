"""The limits of an agent's terminal: who enforces them, how much it uses, and whether it died of them.

Where the kernel cannot enforce them, the agent's worker does: it looks every second and ends a terminal that uses too
much. ``ulimit`` is no help: programs reserve many times what they use, and processes are counted for the whole user.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import psutil

from torch_tasks.model.limits import Resources, size
from torch_tasks.model.task import FailureKind
from torch_tasks.system.loops import Loop
from torch_tasks.system.processes import kill_each
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.host.terminal import Terminal
from torch_tasks.workers.tmux.cgroup import group_of

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


class ResourceGuard:
    """Enforces and reports the limits of one agent's terminal."""

    def __init__(self, agent_id: str, terminal: Terminal) -> None:
        self._agent_id = agent_id
        self._terminal = terminal
        self._limits = terminal.limits
        self._ended: tuple[FailureKind, str] | None = None

    def start(self) -> None:
        """Enforce the limits where the kernel does not, from now on, as long as this process lives."""
        if self._limits.memory or self._limits.processes:
            Loop("guard", self._watch, pause=_LOOK_SECONDS, longest_retry_seconds=_LOOK_SECONDS).start()

    def resources(self) -> Resources:
        group = self._group()
        processes = self._terminal.processes()
        memory = _number(group / "memory.current") if group else None
        count = _number(group / "pids.current") if group else None
        return Resources(
            memory=sum(map(_resident, processes)) if memory is None else memory,
            processes=len(processes) if count is None else count,
            limits=self._limits,
            kept_by=self._kept_by(group),
            oom_kills=_oom_kills(group),
        )

    def begin(self, run: AttemptFolder) -> None:
        """A task begins: forget what was killed before."""
        self._ended = None
        run.oom_kills.write_text(f"{_oom_kills(self._group())}\n")

    def why(self, run: AttemptFolder) -> tuple[FailureKind, str] | None:
        """Which limit ended the task, if one certainly did. Call this before the terminal is ended."""
        if self._ended:
            return self._ended
        before = _number(run.oom_kills) or 0
        killed = _oom_kills(self._group()) - before
        if killed <= 0:
            return None
        limit = f", the limit is {size(self._limits.memory)}" if self._limits.memory else ""
        return FailureKind.OUT_OF_MEMORY, f"out of memory: the kernel killed {killed} of its processes{limit}"

    def _watch(self) -> None:
        with suppress(psutil.Error, OSError):
            if self._group() is None:
                self._look()

    def _look(self) -> None:
        processes, limits = self._terminal.processes(), self._limits
        memory = sum(map(_resident, processes))
        if limits.memory and memory > limits.memory:
            reason = f"out of memory: its processes used {size(memory)}, the limit is {size(limits.memory)}"
            self._end(processes, FailureKind.OUT_OF_MEMORY, reason)
        elif limits.processes and len(processes) > limits.processes:
            reason = f"too many processes: it had {len(processes)}, the limit is {limits.processes}"
            self._end(processes, FailureKind.AGENT_CRASHED, reason)

    def _end(self, processes: list[psutil.Process], kind: FailureKind, reason: str) -> None:
        log.warning("%s: %s; its worker ends its terminal", self._agent_id, reason)
        self._ended = kind, f"{reason} (ended by its worker)"
        kill_each(processes)  # the oldest first: it must not replace those that are killed

    def _group(self) -> Path | None:
        """The control group in which the kernel enforces the limits, if it does."""
        server = self._terminal.server_pid
        group = group_of(server, self._agent_id) if server else None
        asked = ((self._limits.memory, "memory.max"), (self._limits.processes, "pids.max"))
        if group and all(_number(group / file) is not None for limit, file in asked if limit):
            return group
        return None

    def _kept_by(self, group: Path | None) -> str:
        if group is None:
            return "its worker" if self._limits.any else ""
        return f"systemd scope {group.name}" if group.suffix == ".scope" else f"control group {group}"


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _number(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _oom_kills(group: Path | None) -> int:
    with suppress(OSError, ValueError):
        for line in (group / "memory.events").read_text().splitlines() if group else ():
            name, count = line.split()
            if name == "oom_kill":
                return int(count)
    return 0
