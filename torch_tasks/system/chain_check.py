"""Finds the first bad place of a chained log."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

from torch_tasks.system.chain_lines import PRUNED, Head, Line, hash_of, lines_of


class Fault(StrEnum):
    """What is wrong with a log at the first bad place."""

    CHANGED = "changed"
    CUT = "cut"
    """The end of the log, or of a file of it, is missing."""
    REMOVED = "removed"
    REORDERED = "reordered"
    INSERTED = "inserted"


@dataclass(frozen=True)
class BrokenChain:
    """The first bad place of a log."""

    fault: Fault
    file: str
    line: int
    number: int
    """Of the first entry that is not as it was."""
    words: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.words} ({self.file}, line {self.line})"


class CheckedFile(NamedTuple):
    """A file that was found as it was written: what told its bytes then, and the last entries before and in it."""

    inode: int
    changed_ns: int
    """When the system last changed the file or what it says of it; nobody can set that."""
    size: int
    begins: Head
    ends: Head

    @classmethod
    def of(cls, found: os.stat_result, begins: Head, ends: Head) -> Self:
        return cls(found.st_ino, found.st_ctime_ns, found.st_size, begins, ends)


@dataclass(frozen=True)
class CheckedLog:
    """What a look at a log found."""

    broken: BrokenChain | None
    files: dict[str, CheckedFile]
    """Those that are as they were written, up to the first bad place."""
    files_read: int
    """How many of these were read: the others have not changed since they were found good."""

    @property
    def last(self) -> Head:
        return list(self.files.values())[-1].ends if self.files else Head(0, "")

    @property
    def entries(self) -> int:
        """How many entries are as they were written."""
        return self.last.number - next(iter(self.files.values())).begins.number if self.files else 0


class ChainCheck:
    """One look at the lines of a log, to the first bad one."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files

    def run(self, known: Mapping[str, CheckedFile]) -> tuple[BrokenChain | None, dict[str, CheckedFile]]:
        """The first bad place, and the files before it.

        ``known`` is what an earlier look found: of its files those are not read again that have not changed.
        """
        good = self._unchanged(known)
        fault = self._go_on_after(good, has_beginning=bool(good) and next(iter(known)) == self._files[0].name)
        return fault, good

    def _unchanged(self, known: Mapping[str, CheckedFile]) -> dict[str, CheckedFile]:
        """The first files, as far as they are those of an earlier look."""
        found: dict[str, CheckedFile] = {}
        last: Head | None = None
        for file in self._files:
            one = known.get(file.name)
            if (
                one is None
                or one.begins != (last or one.begins)
                or one != CheckedFile.of(file.stat(), one.begins, one.ends)
            ):
                break
            found[file.name], last = one, one.ends
        return found

    def _go_on_after(self, good: dict[str, CheckedFile], *, has_beginning: bool) -> BrokenChain | None:
        """Read the other files, and add those that are good."""
        before: Line | None = None
        last = begins = Head(0, "")
        if good:
            first = next(iter(good.values())).begins
            if not has_beginning and (fault := self._missing_beginning(self._files[0], first)):
                return fault
            last = begins = list(good.values())[-1].ends
            before = Line(self._files[len(good) - 1], 0, b"", last.number, last.hash, {})
        rest = self._files[len(good) :]
        told = {file: file.stat() for file in rest}  # before they are read
        for line, following in _pairs(line for file in rest for line in lines_of(file)):
            if before is None:
                last = begins = Head(int(line.value.get("after", 0)), str(line.value.get("before", "")))
                fault = self._missing_beginning(line.file, last)
            else:
                fault = _missing_file(before, line)
            if fault := fault or self._fault(before, line, following, last):
                return fault
            before, last = line, Head(last.number + 1, line.hash)
            if following is None or following.file != line.file:
                good[line.file.name] = CheckedFile.of(told[line.file], begins, last)
                begins = last
        return self._empty_file(good, last)

    def _all(self) -> Iterator[Line]:
        for file in self._files:
            yield from lines_of(file)

    def _missing_beginning(self, first: Path, start: Head) -> BrokenChain | None:
        if start.number == 0:
            return None
        latest_first = (line.value for file in reversed(self._files) for line in lines_of(file))
        if any((one.get("through"), one.get("hash")) == start for one in latest_first if one.get("what") == PRUNED):
            return None
        words = f"the entries 1 to {start.number} are missing, and no entry says that they were pruned"
        return BrokenChain(Fault.REMOVED, first.name, 1, 1, words)

    def _empty_file(self, good: Mapping[str, CheckedFile], last: Head) -> BrokenChain | None:
        """A file without a single whole line: each is made with its first one."""
        for file in self._files:
            if file.name not in good:
                return BrokenChain(Fault.CUT, file.name, 1, last.number + 1, "the file has no entry")
        return None

    def _fault(self, before: Line | None, line: Line, following: Line | None, last: Head) -> BrokenChain | None:
        if _continues(line, last):
            return None
        number = last.number + 1
        fault, words = self._what_happened(before, line, following, last)
        return BrokenChain(fault, line.file.name, line.place, number, words)

    def _what_happened(self, before: Line | None, line: Line, following: Line | None, last: Head) -> tuple[Fault, str]:
        number = last.number + 1
        if following and _continues(following, last) and (line.number or 0) <= number:
            return Fault.INSERTED, f"something that was never written stands before entry {number}"
        if line.number is None:
            return Fault.CHANGED, f"entry {number} cannot be read"
        if line.number < number:
            return Fault.INSERTED, f"entry {line.number} stands a second time, before entry {number}"
        if line.number > number:
            if any(other.number == number for other in self._all()):
                return Fault.REORDERED, f"entry {line.number} stands where entry {number} was"
            if before and line.file != before.file:
                return Fault.CUT, f"the entries {number} to {line.number - 1} at the end of a file are missing"
            return Fault.REMOVED, f"the entries {number} to {line.number - 1} are missing"
        return Fault.CHANGED, f"entry {number} is not what was written"


def _pairs(lines: Iterator[Line]) -> Iterator[tuple[Line, Line | None]]:
    """Each line with the next one."""
    line = next(lines, None)
    while line is not None:
        following = next(lines, None)
        yield line, following
        line = following


def _continues(line: Line, last: Head) -> bool:
    """Whether the chain goes on with this line."""
    return line.number == last.number + 1 and line.hash == hash_of(last.hash, line.payload)


def _missing_file(before: Line, line: Line) -> BrokenChain | None:
    first, after = int(before.file.stem) + 1, int(line.file.stem)
    if after <= first:
        return None
    names = [f"{number:06}.jsonl" for number in range(first, after)]
    number = (before.number or 0) + 1
    words = f"{', '.join(names)} with the entries from {number} on is missing"
    return BrokenChain(Fault.REMOVED, names[0], 1, number, words)
