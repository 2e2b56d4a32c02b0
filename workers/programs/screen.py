"""What a person would see in a pane, as text: the screen, the composer on it, the answer above the composer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import zip_longest
from typing import NamedTuple, Self

from torch_tasks.workers.programs.config import AnswerConfig, ComposerConfig
from torch_tasks.workers.tmux.pane import AgentPane, comparable

_SEQUENCE = re.compile(r"\x1b(?:\[([0-9;:]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Za-z0-9]|.)|[\x0e\x0f]")


@dataclass(frozen=True)
class Screen:
    """A pane at one moment."""

    lines: tuple[str, ...]
    """The rows from the top, without the blanks at their ends."""
    solid: tuple[str, ...]
    """The same with blanks instead of dim text, which is a suggestion that no person wrote."""
    cursor: tuple[int, int] = (0, 0)
    """Column and row."""
    title: str = ""
    in_use: bool = False
    """A person pressed keys a moment ago, which may not be drawn yet."""
    used_at: int = 0
    """When a person last pressed a key, by tmux's clock."""
    width: int = 200
    """In cells."""
    lit: frozenset[int] = frozenset()
    """The rows whose words are drawn in reverse, or on a ground of their own."""

    @classmethod
    def of(cls, pane: AgentPane) -> Self | None:
        """The pane as it is now; None if it is gone."""
        look = pane.look()
        if look is None:
            return None
        cursor = (look.cursor_x, look.cursor_y)
        screen = cls.parse("\n".join(pane.drawn()), cursor=cursor, title=look.title, width=look.width)
        return replace(screen, in_use=look.in_use, used_at=look.used_at)

    @classmethod
    def parse(cls, text: str, *, cursor: tuple[int, int] = (0, 0), title: str = "", width: int = 200) -> Self:
        """A screen as ``tmux capture-pane -e`` writes it."""
        drawn = list(_drawn(text.split("\n")))
        lines = tuple("".join(run.text for run in row).rstrip() for row in drawn)
        solid = tuple(_solid(row) for row in drawn)
        lit = frozenset(at for at, row in enumerate(drawn) if _is_lit(row))
        return cls(lines, solid, cursor, title, width=width, lit=lit)

    @property
    def text(self) -> str:
        """The rows down to the last that is not blank."""
        return "\n".join(self.lines).rstrip("\n")

    def bottom(self, count: int) -> tuple[str, ...]:
        return tuple(self.text.split("\n")[-count:])


class _Look(NamedTuple):
    """How characters are drawn."""

    dim: bool = False
    reverse: bool = False
    """In the colours of a drawn cursor."""
    ground: bool = False
    """On a ground of their own."""


class _Stretch(NamedTuple):
    """Characters of a row that look alike."""

    text: str
    look: _Look


def _drawn(rows: Iterable[str]) -> Iterator[list[_Stretch]]:
    look = _Look()  # tmux writes only what changes, also from row to row
    for row in rows:
        runs: list[_Stretch] = []
        place = 0
        for sequence in _SEQUENCE.finditer(row) if "\x1b" in row or "\x0e" in row or "\x0f" in row else ():
            if sequence.start() > place:
                runs.append(_Stretch(row[place : sequence.start()], look))
            place = sequence.end()
            if sequence[2] == "m":
                look = _changed(look, sequence[1])
        if place < len(row):
            runs.append(_Stretch(row[place:], look))
        yield runs


def _changed(look: _Look, parameters: str) -> _Look:
    numbers = iter(parameters.split(";"))
    for number in numbers:
        if number in _COLOURS:  # the numbers of a colour are no attributes
            look = look._replace(ground=look.ground or number == "48")
            for _ in range({"5": 1, "2": 3}.get(next(numbers, ""), 0)):
                next(numbers, "")
        elif number in ("", "0"):
            look = _Look()
        elif _GROUND.fullmatch(number):
            look = look._replace(ground=True)
        else:
            look = look._replace(**_CHANGES.get(number, {}))
    return look


_COLOURS = ("38", "48", "58")
_GROUND = re.compile("(?:4|10)[0-7]")
_CHANGES = {
    "2": {"dim": True},
    "22": {"dim": False},
    "7": {"reverse": True},
    "27": {"reverse": False},
    "49": {"ground": False},
}


def _is_lit(row: Sequence[_Stretch]) -> bool:
    """Whether most of the row's letters stand out by their ground."""
    letters = [(sum(map(str.isalnum, run.text)), run.look) for run in row]
    return 2 * sum(count for count, look in letters if look.reverse or look.ground) > sum(count for count, _ in letters)


def _solid(row: Sequence[_Stretch]) -> str:
    shown = []
    for run, after in zip_longest(row, row[1:]):
        text = " " * len(run.text) if run.look.dim else run.text
        if run.look.reverse and after and after.look.dim and after.text[0] != " ":
            text = f"{text[:-1]} "  # the cursor is on the suggestion's first letter
        shown.append(text)
    return "".join(shown).rstrip()


#: So many characters must be seen before they count as a part of Torch's text.
_ENOUGH = 12


class ComposerContent(StrEnum):
    """Whose text is in the composer; ours is the text that Torch submits."""

    NOTHING = "nothing"
    OURS = "ours"
    PART = "a part of ours"
    MIXED = "ours, and more"
    """A person is typing into it."""
    FOREIGN = "not ours"
    UNSEEN = "cannot tell"
    """Something covers the composer, or it is not where it should be."""


@dataclass(frozen=True)
class Composer:
    """What the screen shows of a program's input."""

    seen: bool
    text: str = ""
    top: int = 0
    """The row of its first line, or the first row below the screen's text."""
    end: int = 0
    """The row after its last line."""

    @property
    def is_empty(self) -> bool:
        """Whether the composer is there with nothing in it."""
        return self.seen and not self.text

    def compare(self, ours: str, placeholder: re.Pattern[str] | None) -> ComposerContent:
        """Whose text this is; a placeholder is ours, as Torch pastes only into an empty composer."""
        if not self.seen:
            return ComposerContent.UNSEEN
        if not self.text:
            return ComposerContent.NOTHING
        if placeholder and (pastes := list(placeholder.finditer(self.text))):
            whole = len(pastes) == 1 and _stands_for(pastes[0], ours)
            if not placeholder.sub("", self.text).strip():
                return ComposerContent.OURS if whole else ComposerContent.PART
            if whole:
                return ComposerContent.MIXED
        seen, all_of_it = comparable(self.text), comparable(ours)
        if seen == all_of_it or (len(seen) >= 4 * _ENOUGH and all_of_it.endswith(seen)):  # its beginning scrolled away
            return ComposerContent.OURS
        # A paste may be cut, or come twice because the first one seemed lost.
        if len(seen) >= _ENOUGH and seen in all_of_it * 3:
            return ComposerContent.PART
        return ComposerContent.MIXED if all_of_it in seen else ComposerContent.FOREIGN


def read_composer(screen: Screen, config: ComposerConfig) -> Composer:
    """The composer on the screen."""
    nowhere = Composer(seen=False, top=len(screen.text.split("\n")))
    place = _place(screen.lines, config)
    if place is None:
        return nowhere
    first, after = place
    content: list[str] = []
    for row in range(first, after):
        mark = (config.prompt if row == first else config.continuation).match(screen.lines[row])
        if mark is None and row == first:  # its first line may have scrolled away
            mark = config.continuation.match(screen.lines[row])
        if mark is None and screen.lines[row]:
            return nowhere
        content.append(config.end.split(screen.solid[row][mark.end() if mark else 0 :], maxsplit=1)[0])
    text = "\n".join(content).strip("\n ")
    if any(hint.fullmatch(text) for hint in config.hints):
        text = ""
    return Composer(seen=True, text=text, top=first, end=after)


def _stands_for(placeholder: re.Match[str], text: str) -> bool:
    """Whether the text has as many ``lines`` and ``chars`` as the placeholder says, if it says it."""
    numbers = placeholder.groupdict()
    lines, chars = numbers.get("lines"), numbers.get("chars")
    return (not lines or int(lines) == text.count("\n")) and (not chars or int(chars) == len(text))


def _place(lines: Sequence[str], config: ComposerConfig) -> tuple[int, int] | None:
    """The composer's first row, and the one after its last."""
    end = min(len(lines), len("\n".join(lines).rstrip("\n").split("\n")))
    if config.covered and end and config.covered.search(lines[end - 1]):
        return None
    after = _last(lines, config.bottom, end) if config.bottom else end
    if config.open_ended and (after is None or after < (_last(lines, config.prompt, end) or 0)):
        after = end
    if after is None:
        return None
    if config.top:
        above = _last(lines, config.top, after)
        return None if above is None or above + 1 == after else (above + 1, after)
    first = _last(lines, config.prompt, after)
    return None if first is None else (first, after)


def _last(lines: Sequence[str], pattern: re.Pattern[str], before: int) -> int | None:
    return next((row for row in range(before - 1, -1, -1) if pattern.search(lines[row])), None)


_FRAME = re.compile(r"[\u2500-\u257f\u2580-\u259f]+")
_SPINNER = re.compile(r"^\s*[\u2800-\u28ff✢✳✶✻✽·*◐◓◑◒]\s.*(…|\.\.\.|\d+s)")


def answer_on(text: str, end: str, config: AnswerConfig) -> str | None:
    """The text below the prompt that ends in ``end``, without frames and spinners; None if the prompt is not seen.

    ``text`` is all that is above the composer.
    """
    rows = text.split("\n")
    start = _after(rows, "".join(end.split())) if end else 0
    if start is None:
        return None
    cleaned = (_clean(row, config) for row in rows[start:])
    lines = [line for line in cleaned if line is not None]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def last_words(text: str) -> str:
    """The end of a text above the composer, by which :func:`answer_on` finds what came after it."""
    rows = [plain for row in text.split("\n") if (plain := _FRAME.sub("", row).strip())]
    return "".join(rows[-3:])


def _after(rows: list[str], end: str) -> int | None:
    """The row after the prompt's last one; the program may have wrapped the prompt anywhere."""
    for row in range(len(rows) - 1, -1, -1):
        joined = ""
        for above in range(row, max(row - 6, -1), -1):
            joined = _FRAME.sub("", "".join(rows[above].split())) + joined
            if joined.endswith(end):
                return row + 1
            if len(joined) > 2 * len(end):
                break
    return None


def _clean(row: str, config: AnswerConfig) -> str | None:
    """The row's part of the answer; None if it is no part of it."""
    if _SPINNER.search(row) or any(pattern.search(row) for pattern in config.drop):
        return None
    plain = _FRAME.sub("", row).rstrip()
    if row.strip() and not plain.strip():  # nothing but a frame
        return None
    return config.strip.sub("", plain, count=1) if config.strip else plain
