"""Deliver a text to any program in a pane, and check that it arrived.

The kernel knows what the program has read of its terminal line; the screen shows whether the text left the input line.
For a program that shows nothing of its input, reading is enough.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import struct
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

from torch_tasks.errors import AgentUnavailable, DeliveryUncertain, InvalidMessage, NotDelivered
from torch_tasks.workers.tmux.pane import AgentPane, comparable

LONGEST_LINE_BYTES = 4095
"""The kernel gives a program that reads lines no longer ones, and drops the rest."""

READ_SECONDS = 5.0
"""How long a program may take to read what was typed."""

SHOW_SECONDS = 1.0
"""How long it may take after that to show it."""

SETTLE_SECONDS = 0.3
"""The pause between seeing the text and Enter: programs that draw their input line take an Enter right after a paste
for a part of it."""

CONFIRM_SECONDS = (1.0, 2.0, 4.0)
"""How long each Enter may take to show an effect before it is pressed again on a text that stays where it is."""

_POLL = 0.02
_QUIET = 3
_TAIL = 24
_PLACEHOLDER = re.compile(r"\[Pasted [^\[\]\n]{1,60}\]")
_FRAME = re.compile(r"[\s─-╿]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TerminalLine:
    """The open terminal line of a pane's program."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @property
    def canonical(self) -> bool:
        """Whether the program reads whole lines, which the kernel edits and cuts."""
        return bool(self._flags & termios.ICANON)

    @property
    def echoes(self) -> bool:
        """Whether the kernel shows what is typed."""
        return bool(self._flags & termios.ECHO)

    @property
    def unread(self) -> int:
        """How many bytes the program has not read yet; only whole lines count if it reads lines."""
        try:
            answer = fcntl.ioctl(self._handle, termios.FIONREAD, struct.pack("i", 0))
        except OSError:  # no process has it open any more
            raise AgentUnavailable("the program has ended while the message was typed into its pane") from None
        return int(struct.unpack("i", answer)[0])

    @property
    def _flags(self) -> int:
        flags: int = termios.tcgetattr(self._handle)[3]
        return flags


@contextmanager
def locked_line(path: str, seconds: float) -> Iterator[TerminalLine]:
    """Open the line at this path for one sender at a time; the kernel releases the lock when its holder dies."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise AgentUnavailable(f"the pane's terminal {path} cannot be opened: {error.strerror}") from None
    try:
        _lock(handle, path, seconds)
        yield TerminalLine(handle)
    finally:
        os.close(handle)


def _lock(handle: int, path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise NotDelivered(
                    f"another sender has been typing into the pane ({path}) for {seconds:g} s; nothing was sent"
                ) from None
            time.sleep(_POLL)
        else:
            return


@dataclass(frozen=True)
class Snapshot:
    """The screen at one moment."""

    rows: tuple[str, ...]
    cursor: tuple[int, int]
    """Column and row."""

    @classmethod
    def of(cls, pane: AgentPane) -> Self:
        cursor = ("display-message", "-p", "-t", pane.pane_id, "#{cursor_x} #{cursor_y} #{pane_dead}")
        answer = pane.server.process(cursor, ("capture-pane", "-p", "-t", pane.pane_id))
        column, row, dead = answer.stdout[0].split() if answer.ok and answer.stdout else ("0", "0", "1")
        if dead == "1":
            raise AgentUnavailable(f"the program in pane {pane.pane_id} at {pane.server.socket} has ended")
        return cls(tuple(answer.stdout[1:]), (int(column), int(row)))

    @property
    def _text(self) -> str:
        return "".join(map(comparable, self.rows))

    def row(self, number: int) -> str:
        """The comparable characters of this row, empty beyond the screen."""
        return comparable(self.rows[number]) if 0 <= number < len(self.rows) else ""

    def count(self, mark: str) -> int:
        """How often the screen shows the mark, also across the ends of rows."""
        return self._text.count(mark)

    @property
    def placeholders(self) -> list[str]:
        """What a program shows in the place of long pastes."""
        return _PLACEHOLDER.findall("\n".join(self.rows))

    @property
    def before_cursor(self) -> str:
        """The comparable characters above and left of the cursor."""
        column, row = self.cursor
        rows = [*self.rows[:row], self.rows[row][:column] if row < len(self.rows) else ""]
        return "".join(map(comparable, rows))

    def end_of(self, mark: str) -> int | None:
        """The row in which the mark's last occurrence ends."""
        place = self._text.rfind(mark)
        if place < 0:
            return None
        ends = itertools.accumulate(len(comparable(row)) for row in self.rows)
        return next(number for number, end in enumerate(ends) if end >= place + len(mark))

    def below(self, number: int) -> str:
        """What the screen shows under this row, without blanks and borders."""
        return _FRAME.sub("", "".join(self.rows[number + 1 :]))


class EnterEffect(Enum):
    """What became of a text after Enter."""

    LEFT = auto()
    """The text is no longer in the input line."""
    NEW_LINE = auto()
    """Only the cursor moved: Enter began a new line, maybe in the same input."""
    STAYS = auto()


@dataclass(frozen=True)
class StagedText:
    """Where the screen showed a text in the input line before Enter."""

    mark: str
    snapshot: Snapshot
    end: int
    """The row in which the mark ends."""

    def effect(self, later: Snapshot) -> EnterEffect:
        """Compare with a later screen; places count from the cursor, since the screen may scroll."""
        column, row = self.snapshot.cursor
        gap, kept = row - self.end, self.snapshot.row(self.end)
        here = later.cursor[1] - gap
        if later.cursor[0] == column and later.row(here) == kept:
            return EnterEffect.STAYS
        same = later.row(here - 1) == kept and later.below(here - 1) == self.snapshot.below(self.end)
        if same and later.count(self.mark) == self.snapshot.count(self.mark):
            return EnterEffect.NEW_LINE
        return EnterEffect.LEFT


def typeable(text: str) -> str:
    """The text with line feeds as its only line ends; :class:`InvalidMessage` if it cannot be typed as it is."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InvalidMessage("the message is empty, and nothing was sent; to press Enter alone, use tmux send-keys")
    if found := _CONTROL.search(text):
        raise InvalidMessage(
            f"the message holds the control character {found[0]!r}, which a terminal takes for a key; "
            "leave it out, or put the text into a file and send the file's name"
        )
    return text


class TextDelivery:
    """Types one text into the program in a pane, whose line the caller has locked."""

    def __init__(self, pane: AgentPane, line: TerminalLine, text: str, place: str) -> None:
        self._pane = pane
        self._line = line
        self._text = typeable(text)
        self._place = place
        self._before: Snapshot | None = None

    def stage(self) -> None:
        """Put the text into the program's input line; return when the screen shows it or the program has read it."""
        if self._line.canonical and (longest := max(map(len, self._text.encode().split(b"\n")))) > LONGEST_LINE_BYTES:
            raise NotDelivered(
                f"{self._program} in {self._place} reads lines of at most {LONGEST_LINE_BYTES:,} bytes, and the "
                f"message has one of {longest:,}: it would be cut, so nothing was sent; send a file's name instead"
            )
        self._before = Snapshot.of(self._pane)
        self._pane.paste(self._text)
        if not self._line.canonical and not self._is_read():
            raise DeliveryUncertain(
                f"{self._program} in {self._place} does not read what is typed: the message waits in its terminal, "
                "Enter was not pressed; look at the pane before you send again"
            )
        if self._line.echoes or not self._line.canonical:
            self._wait(lambda: self._mark(Snapshot.of(self._pane)) is not None, SHOW_SECONDS)

    def submit(self) -> None:
        """Press Enter on the staged text; return when it has left the input line, or the program has read it."""
        if not self._line.canonical:
            time.sleep(SETTLE_SECONDS)
        staged = self._staged()
        effect = EnterEffect.STAYS
        try:
            for seconds in CONFIRM_SECONDS:
                if effect is EnterEffect.STAYS:
                    self._enter()
                if staged is None or self._wait(lambda: self._has_left(staged), seconds):
                    return
                effect = staged.effect(Snapshot.of(self._pane))
        except AgentUnavailable as error:
            raise DeliveryUncertain(f"Enter was pressed, and then {error}") from None
        if effect is EnterEffect.STAYS:
            raise NotDelivered(
                f"the message is still in the input line of {self._program} in {self._place} after "
                f"{len(CONFIRM_SECONDS)} Enters; clear that line before you send again"
            )
        raise DeliveryUncertain(
            f"Enter began a new line in {self._place}, and nothing shows that {self._program} took the message; "
            "look at the pane before you send again"
        )

    def _enter(self) -> None:
        self._pane.press("Enter")
        if not self._is_read():
            raise DeliveryUncertain(
                f"{self._program} in {self._place} does not read what is typed: the message and Enter wait in its "
                "terminal until it does; do not send it again"
            )

    def _has_left(self, staged: StagedText) -> bool:
        """Whether two looks in a row find it gone: one alone may meet a screen that is being redrawn."""
        if self._line.canonical:  # a program that reads single keys stops doing so when it has its line
            return True
        return all(staged.effect(Snapshot.of(self._pane)) is EnterEffect.LEFT for _ in range(2))

    def _staged(self) -> StagedText | None:
        """Where the screen shows the text; None if it shows nothing of it."""
        snapshot = Snapshot.of(self._pane)
        mark = None if self._line.canonical else self._mark(snapshot)
        end = snapshot.end_of(mark) if mark else None
        return StagedText(mark, snapshot, end) if mark and end is not None else None

    def _mark(self, snapshot: Snapshot) -> str | None:
        """The end of our text, or the placeholder for it, that the screen shows now and did not show before."""
        assert self._before is not None
        tail = next(filter(None, map(comparable, reversed(self._text.split("\n")))), "")[-_TAIL:]
        at_cursor = snapshot.before_cursor
        if tail and at_cursor.endswith(tail) and at_cursor != self._before.before_cursor:
            return tail
        if tail and snapshot.count(tail) > self._before.count(tail):
            return tail
        new = Counter(snapshot.placeholders) - Counter(self._before.placeholders)
        return comparable(next(iter(new))) if new else None

    def _is_read(self) -> bool:
        deadline = time.monotonic() + READ_SECONDS
        quiet = 0
        while quiet < _QUIET:
            self._pane.server.process(("display-message", "-p", ""))  # once tmux answers, it has passed the input on
            quiet = 0 if self._line.unread else quiet + 1
            if time.monotonic() > deadline and not quiet:
                return False
            time.sleep(_POLL)
        return True

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not (met := condition()) and time.monotonic() < deadline:
            time.sleep(_POLL)
        return met

    @property
    def _program(self) -> str:
        look = self._pane.look()
        return look.command if look else "the program"
