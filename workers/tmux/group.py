"""A control group of an agent's own, in a folder of cgroup v2 that was delegated to Torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torch_tasks.model.limits import Limits

log = logging.getLogger(__name__)

_PERIOD_US = 100_000
PREFIX = "torch-agent-"
"""How the name of every agent's scope or group begins."""


def group_words(name: str, limits: Limits, parent: Path | None) -> tuple[str, ...]:
    """The words before a command that runs it in this agent's group; none where there is none, or no need for one."""
    if parent is None or not limits.any:
        return ()
    group = parent / f"{PREFIX}{name}"
    try:
        group.mkdir(exist_ok=True)
        for file, value in _files(limits):
            (group / file).write_text(value)
        if limits.memory:
            with suppress(OSError):  # a kernel that does not count swap has no such file
                (group / "memory.swap.max").write_text("0")
    except OSError as error:
        log.warning("%s: no control group below %s, its worker keeps the limits: %s", name, parent, error)
        with suppress(OSError):
            group.rmdir()
        return ()
    return ("sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"))


def remove_group(name: str, parent: Path | None) -> None:
    """Take the group away, once nothing runs in it."""
    if parent is not None:
        with suppress(OSError):
            (parent / f"{PREFIX}{name}").rmdir()


def group_of(pid: int, name: str) -> Path | None:
    """The agent's own group or scope that this process is in, where the kernel keeps the limits; none without one."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            number, _, path = line.split(":", 2)
            if number == "0" and Path(path).name.startswith(f"{PREFIX}{name}"):
                return next((mount / path.lstrip("/") for mount in _mounts()), None)
    return None


def _mounts() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            yield Path(place)


def _files(limits: Limits) -> Iterator[tuple[str, str]]:
    if limits.memory:
        yield "memory.max", str(limits.memory)
    if limits.cpu:
        yield "cpu.max", f"{int(limits.cpu * _PERIOD_US)} {_PERIOD_US}"
    if limits.processes:
        yield "pids.max", str(limits.processes)
