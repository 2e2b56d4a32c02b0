"""From the bytes of a terminal to keys, typed text and pastes."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_BEGIN, _END = b"\x1b[200~", b"\x1b[201~"
_TEXT = re.compile(rb"[^\x00-\x1f\x7f]+")
_SEQUENCE = re.compile(rb"\x1b(?:\[([0-?]*[ -/]*[@-~])|O([ -~]))")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_CONTROLS = {0: "C-Space", 8: "Backspace", 9: "Tab", 13: "Enter", 127: "Backspace"}
_SEQUENCES = {
    "A": "Up",
    "B": "Down",
    "C": "Right",
    "D": "Left",
    "H": "Home",
    "F": "End",
    "Z": "BTab",
    "3~": "Delete",
    "13;2u": "M-Enter",
    "27;2;13~": "M-Enter",
}


@dataclass(frozen=True)
class Key:
    """A key, by tmux's name for it."""

    name: str


@dataclass(frozen=True)
class Typed:
    """Printable characters, one after the other."""

    text: str


@dataclass(frozen=True)
class Paste:
    """What came in one frame, byte for byte but for the encoding."""

    text: str


Input = Key | Typed | Paste


class KeyReader:
    """Takes bytes as they come, however they are cut."""

    def __init__(self) -> None:
        self._pending = b""
        self._paste: bytearray | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def unsure(self) -> bool:
        """An Escape came, which may be the key or the beginning of something longer."""
        return self._paste is None and bool(self._pending)

    def feed(self, data: bytes) -> list[Input]:
        """What is complete by now."""
        self._pending += data
        found: list[Input] = []
        while self._pending and self._step(found):
            pass
        return found

    def settle(self) -> list[Input]:
        """Nothing followed the Escape: it was the key."""
        rest, self._pending = self._pending[1:], b""
        return [Key("Escape"), *self.feed(rest)]

    def _step(self, found: list[Input]) -> bool:
        """Take one thing from what is pending; False if it is not complete."""
        if self._paste is not None:
            return self._take_paste(found)
        first = self._pending[0]
        if first == 0x1B:
            return self._take_sequence(found)
        if first < 0x20 or first == 0x7F:
            self._pending = self._pending[1:]
            found.append(Key(_CONTROLS.get(first, f"C-{chr(first + 0x60)}")))
            return True
        run = _TEXT.match(self._pending)
        assert run
        self._pending = self._pending[run.end() :]
        if text := self._decoder.decode(run.group()):
            found.append(Typed(text))
        return True

    def _take_paste(self, found: list[Input]) -> bool:
        assert self._paste is not None
        start = max(0, len(self._paste) - len(_END))
        self._paste += self._pending
        self._pending = b""
        end = self._paste.find(_END, start)
        if end < 0:
            return False
        self._pending = bytes(self._paste[end + len(_END) :])
        found.append(Paste(self._paste[:end].decode(errors="replace")))
        self._paste = None
        return True

    def _take_sequence(self, found: list[Input]) -> bool:
        if self._pending.startswith(_BEGIN):
            self._pending = self._pending[len(_BEGIN) :]
            self._paste = bytearray()
            return True
        if _UNFINISHED.match(self._pending):
            return False
        if sequence := _SEQUENCE.match(self._pending):
            name = (sequence[1] or sequence[2]).decode("latin-1")
            self._pending = self._pending[sequence.end() :]
            found.append(Key(_SEQUENCES.get(name, f"CSI {name}")))
            return True
        second = self._pending[1]
        if second == 0x1B:
            self._pending = self._pending[1:]
            found.append(Key("Escape"))
            return True
        self._pending = self._pending[2:]
        found.append(Key("M-Enter" if second == 0x0D else f"M-{chr(second)}"))
        return True
