"""A process that shows other arguments and another environment than those it was started with.

Linux lets every process say where its arguments and its environment lie (``PR_SET_MM_MAP``), so ``ps`` and whoever
reads ``/proc`` find a forked process under its own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_NO_FILE = 0xFFFFFFFF
#: Which field of /proc/PID/stat each address is, as proc(5) counts them.
_ADDRESSES = {
    "start_code": 26, "end_code": 27, "start_stack": 28, "start_data": 45, "end_data": 46, "start_brk": 47,
}  # fmt: skip
_shown: list[object] = []
"""What the kernel reads must stay where it is."""


class MemoryMap(ctypes.Structure):
    """The kernel's ``struct prctl_mm_map``."""

    _fields_ = (
        *(
            (name, ctypes.c_uint64)
            for name in (
                *("start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack"),
                *("arg_start", "arg_end", "env_start", "env_end", "auxv"),
            )
        ),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


def show_as(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Have this process shown with these from now on; OSError where the system cannot."""
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    shown = ctypes.create_string_buffer(words + variables)
    at = ctypes.addressof(shown)
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    mapped = MemoryMap(
        **{name: int(stat[field - 3]) for name, field in _ADDRESSES.items()},
        brk=libc.sbrk(0),
        arg_start=at,
        arg_end=at + len(words),
        env_start=at + len(words),
        env_end=at + len(words) + len(variables),
        exe_fd=_NO_FILE,
    )
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(mapped), ctypes.sizeof(mapped), 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _shown[:] = [shown]
