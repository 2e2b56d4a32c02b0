"""The program's input line as it stands on the screen: empty, or holding what, and whether that is ours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch_tasks.workers.programs.config import ComposerConfig
from torch_tasks.workers.programs.screen import Screen

#: So much of a text must be seen before it counts as a part of ours.
_ENOUGH = 12


class Holds(StrEnum):
    """Whose text stands in the composer."""

    NOTHING = "nothing"
    OURS = "ours"
    PART = "a part of ours"
    MIXED = "ours, and more"
    """Somebody types into it."""
    FOREIGN = "somebody else's"
    UNSEEN = "cannot tell"
    """Something covers it, or it is not where it should be."""


@dataclass(frozen=True)
class Composer:
    """What the screen shows of it."""

    seen: bool
    text: str = ""
    top: int = 0
    """The row of its first line, or the first row below the screen's text."""

    @property
    def empty(self) -> bool:
        """It is there, and nothing stands in it."""
        return self.seen and not self.text

    def holds(self, ours: str, placeholder: re.Pattern[str] | None) -> Holds:
        """Whose text this is; a placeholder is ours, for we pasted into an empty composer."""
        if not self.seen:
            return Holds.UNSEEN
        if not self.text:
            return Holds.NOTHING
        if placeholder and (pastes := list(placeholder.finditer(self.text))):
            whole = len(pastes) == 1 and _stands_for(pastes[0], ours)
            if not placeholder.sub("", self.text).strip():
                return Holds.OURS if whole else Holds.PART
            if whole:
                return Holds.MIXED
        seen, all_of_it = telling(self.text), telling(ours)
        if seen == all_of_it or (len(seen) >= 4 * _ENOUGH and all_of_it.endswith(seen)):  # its beginning scrolled away
            return Holds.OURS
        # A paste may be cut, or come twice because it was taken for lost.
        if len(seen) >= _ENOUGH and seen in all_of_it * 3:
            return Holds.PART
        return Holds.MIXED if all_of_it in seen else Holds.FOREIGN


def read_composer(screen: Screen, config: ComposerConfig) -> Composer:
    """Find the composer on the screen."""
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
        content.append(_within(screen.solid[row], mark.end() if mark else 0, config.end))
    text = "\n".join(content).strip("\n ")
    if any(hint.fullmatch(text) for hint in config.hints):
        text = ""
    return Composer(seen=True, text=text, top=first)


def _stands_for(placeholder: re.Match[str], text: str) -> bool:
    """The numbers in it, if it has them as the groups ``lines`` and ``chars``, are the text's."""
    said = placeholder.groupdict()
    lines, chars = said.get("lines"), said.get("chars")
    return (not lines or int(lines) == text.count("\n")) and (not chars or int(chars) == len(text))


def _place(lines: Sequence[str], config: ComposerConfig) -> tuple[int, int] | None:
    """Its first row, and the one after its last."""
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


def _within(row: str, start: int, end: re.Pattern[str]) -> str:
    text = row[start:]
    border = end.search(text)
    return text[: border.start()] if border else text


def telling(text: str) -> str:
    """The characters that no terminal changes: blanks, and how wide or joined others are, say nothing."""
    return "".join(char for char in unicodedata.normalize("NFC", text) if char.isalnum() or "!" <= char <= "~")
