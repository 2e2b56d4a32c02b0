"""The text that is being written, and what Enter makes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from fakes.cli.scenario import Ways

_COMMAND = re.compile(r"/[A-Za-z][\w:-]*(?=\s|\Z)")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?|\x07")


class Meaning(Enum):
    """What Enter does with a text."""

    NOTHING = auto()
    NEWLINE = auto()
    RUN_LOCALLY = auto()
    COMMAND = auto()
    PROMPT = auto()


@dataclass(frozen=True)
class Pasted:
    """A paste too long to be shown."""

    text: str
    mark: str


@dataclass(frozen=True)
class Draft:
    """What was written: characters, and pastes that are not shown."""

    items: Sequence[str | Pasted]

    @property
    def text(self) -> str:
        return "".join(item.text if isinstance(item, Pasted) else item for item in self.items)

    @property
    def shown(self) -> str:
        """What is on the screen."""
        return "".join(item.mark if isinstance(item, Pasted) else item for item in self.items)

    @property
    def collapsed(self) -> bool:
        """Some paste is not shown."""
        return any(isinstance(item, Pasted) for item in self.items)

    def sent(self, ways: Ways) -> str:
        """The text as the model gets it."""
        text = self.text
        return text.strip() if ways.strip == "both" else text.rstrip() if ways.strip == "end" else text


class Composer:
    """A text with its cursor at the end."""

    def __init__(self) -> None:
        self._items: list[str | Pasted] = []
        self._pastes = 0

    @property
    def draft(self) -> Draft:
        return Draft(self._items)

    @property
    def empty(self) -> bool:
        return not self._items

    def type(self, text: str) -> None:
        """Write the characters."""
        self._items += text

    def paste(self, text: str, ways: Ways) -> None:
        """Take a paste: each CR and each LF is a line break."""
        text = text.replace("\r", "\n")
        if ways.drop_escapes:
            text = _ESCAPES.sub("", text)
        if ways.tab_blanks:
            text = text.replace("\t", " " * ways.tab_blanks)
        lines = text.count("\n")
        if lines <= ways.collapse_lines and len(text) <= ways.collapse_chars:
            self._items += text
            return
        self._pastes += 1
        more = f" +{lines} lines" if lines else ""
        self._items.append(Pasted(text, f"[Pasted text #{self._pastes}{more}]"))

    def backspace(self) -> None:
        """Take the last character, or the last hidden paste."""
        if self._items:
            self._items.pop()

    def kill_line(self) -> None:
        """Take the last line; if it is empty, its line break."""
        if self._items and self._items[-1] == "\n":
            self._items.pop()
            return
        while self._items and self._items[-1] != "\n":
            self._items.pop()

    def kill_word(self) -> None:
        """Take the last word."""
        while self._items and self._items[-1] == " ":
            self._items.pop()
        while self._items and self._items[-1] not in (" ", "\n"):
            self._items.pop()

    def restore(self, draft: Draft) -> None:
        """Put back what was taken; what is there stays behind it."""
        self._items[:0] = draft.items

    def take(self) -> Draft:
        """Empty it, and return what was in it."""
        taken, self._items = Draft(self._items), []
        return taken

    def enter(self, ways: Ways) -> Meaning:
        """What Enter means now; a last backslash becomes the line break it stands for."""
        text = self.draft.text
        if not text.strip():
            return Meaning.NOTHING
        if ways.backslash_continues and self._items[-1] == "\\":
            self._items[-1] = "\n"
            return Meaning.NEWLINE
        if ways.backslash_continues and text.endswith("\\"):  # at the end of a hidden paste
            self.type("\n")
            return Meaning.NEWLINE
        if ways.bang_runs and text.startswith("!"):
            return Meaning.RUN_LOCALLY
        if ways.slash_commands and _COMMAND.match(text):
            return Meaning.COMMAND
        return Meaning.PROMPT
