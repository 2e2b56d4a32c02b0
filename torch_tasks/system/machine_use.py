"""How much of this machine is used: by processes and all below them in one look, and of a disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LEAST_FREE_MIB = 64
"""With less free on its disk, a machine can no longer be sure to keep what it accepts."""
_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class DiskSpace(NamedTuple):
    """Bytes of the disk that a folder lies on."""

    free: int
    size: int

    @property
    def is_full(self) -> bool:
        return self.free >> 20 < LEAST_FREE_MIB

    def __str__(self) -> str:
        return f"{self.free >> 20:,} MiB free"


def disk_space(folder: Path) -> DiskSpace:
    """OSError if there is no such folder."""
    found = shutil.disk_usage(folder)
    return DiskSpace(found.free, found.total)


class Used(NamedTuple):
    memory: int = 0
    """Resident bytes."""
    cpu: float = 0.0
    """Seconds, with those of the dead that their parents have waited for."""
    processes: int = 0


class _Process(NamedTuple):
    parent: int
    used: Used


def used_below(roots: Mapping[str, int]) -> dict[str, Used]:
    """What each of these processes uses together with all that it has started; those that are gone are left out."""
    if not roots:
        return {}
    known = {int(name): found for name in os.listdir(_PROC) if name.isdigit() and (found := _read(name))}  # noqa: PTH208
    children: dict[int, list[int]] = {}
    for pid, process in known.items():
        children.setdefault(process.parent, []).append(pid)
    return {name: _sum(pid, known, children) for name, pid in roots.items() if pid in known}


def _sum(root: int, known: Mapping[int, _Process], children: Mapping[int, list[int]]) -> Used:
    total, left = Used(), [root]
    while left:
        pid = left.pop()
        used = known[pid].used
        total = Used(total.memory + used.memory, total.cpu + used.cpu, total.processes + 1)
        left += children.get(pid, ())
    return total


def _read(pid: str) -> _Process | None:
    with suppress(OSError, ValueError, IndexError):
        text = (_PROC / pid / "stat").read_bytes()
        fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold anything
        cpu = sum(map(int, fields[11:15])) / _TICK
        return _Process(int(fields[1]), Used(int(fields[21]) * _PAGE, cpu, 1))
    return None
