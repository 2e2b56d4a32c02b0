"""The files of one log: the present one, and those that were put aside when they were full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def end_of_log(path: Path, size: int, begin: tuple[int, int] | None = None) -> bytes:
    """At most so many bytes from the end of a log, also those in the file that was put aside before its present one.

    With ``begin``, the number of a file and a place in it, nothing from before that place.
    """
    said = b""
    for file in (path, numbered(path, 1)):
        with suppress(FileNotFoundError), file.open("rb") as log:
            begins_here = begin is not None and os.fstat(log.fileno()).st_ino == begin[0]
            first = begin[1] if begin and begins_here else 0
            log.seek(max(first, log.seek(0, os.SEEK_END) - size + len(said)))
            said = log.read() + said
            if begins_here or len(said) >= size:
                break
    return said[-size:]


def put_aside(path: Path) -> Iterator[tuple[int, Path]]:
    """What was put aside of a log, and under which number: the latest has the number 1."""
    for file in path.parent.glob(f"{path.name}.*"):
        number = file.name.removeprefix(f"{path.name}.")
        if number.isdecimal():
            yield int(number), file


def numbered(path: Path, number: int) -> Path:
    """Where a log lies that was put aside so many times."""
    return path.with_name(f"{path.name}.{number}")
