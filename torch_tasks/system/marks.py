"""A mark that a process and all that it leads to have, in whatever session, below whatever parent, and without their
environment.

Linux keeps a limit that it has not enforced for twenty years, ``RLIMIT_LOCKS``: every process inherits it, and none
sets it. So its number is the mark. Where a system has no such limit, the mark is in the environment alone.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

_VARIABLE = "TORCH_MARK"
_RLIMIT_LOCKS = 10
_LIMIT = b"Max file locks"


def mark_of(*names: str) -> int:
    """The mark of what has these names; no process has it by chance."""
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:7])


def marked_environment(mark: int) -> dict[str, str]:
    """The variable that marks a process."""
    return {_VARIABLE: str(mark)}


def marking_words(mark: int) -> tuple[str, ...]:
    """The words that mark the command after them; none where only the environment can."""
    prlimit = shutil.which("prlimit")
    return (prlimit, f"--locks={mark}:", "--") if prlimit else ()


def has_mark(process: psutil.Process, mark: int) -> bool:
    """Whether a process is marked so; false for one whose marks this user may not read."""
    with suppress(OSError, IndexError):
        limit = Path(f"/proc/{process.pid}/limits").read_bytes().partition(_LIMIT)[2].split(maxsplit=1)[0]
        if limit == b"%d" % mark:
            return True
    with suppress(OSError):  # read as it is: psutil takes it apart, which takes ten times as long
        return f"{_VARIABLE}={mark}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    with suppress(psutil.Error):  # a system without /proc
        return process.environ().get(_VARIABLE) == str(mark)
    return False


def take_off_mark(pid: int) -> None:
    """Take the mark off a process that does not belong to what has started it."""
    with suppress(OSError, ValueError):
        most = resource.prlimit(pid, _RLIMIT_LOCKS)[1]
        resource.prlimit(pid, _RLIMIT_LOCKS, (most, most))


def unmarked_environment(environment: Mapping[str, str] | None) -> dict[str, str]:
    """The environment, or this process's own, without a mark."""
    given = os.environ if environment is None else environment
    return {name: value for name, value in given.items() if name != _VARIABLE}
