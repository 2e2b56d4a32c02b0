"""How much of this machine is used: by processes and all below them in one look, and of a disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

LEAST_FREE_MIB = 64
"""With less free on its disk, a machine can no longer be sure to keep what it accepts."""
_LONGEST_STAT = 4096
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
    known = {int(name): found for name in os.listdir("/proc") if name.isdigit() and (found := _read(name))}  # noqa: PTH208
    children: dict[int, list[int]] = {}
    for pid, process in known.items():
        children.setdefault(process.parent, []).append(pid)
    return {name: _sum(pid, known, children) for name, pid in roots.items() if pid in known}


def _sum(root: int, known: Mapping[int, _Process], children: Mapping[int, list[int]]) -> Used:
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    used = [known[pid].used for pid in found]
    return Used(sum(one.memory for one in used), sum(one.cpu for one in used), len(used))


def _read(pid: str) -> _Process | None:
    """One of hundreds at each scrape: by the system's own calls it takes a third of the time that a Path takes."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            text = os.read(file, _LONGEST_STAT)
        finally:
            os.close(file)
        fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold anything
        cpu = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
        return _Process(int(fields[1]), Used(int(fields[21]) * _PAGE, cpu / _TICK, 1))
    except (OSError, ValueError, IndexError):
        return None
