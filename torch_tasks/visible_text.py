"""Text as a terminal may show it: nothing in it steers the terminal, hides, or changes the order of reading."""

from __future__ import annotations

import json
import re

#: Controls (tabs and ends of lines aside), invisible and reordering characters, line separators, lone surrogates, tags.
_HIDDEN = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
)
_BREAKS = re.compile("[\t\r\n]")


def visible(text: str) -> str:
    """The text with a sign in the place of each character that a terminal would obey or hide."""
    if text.isascii() and text.isprintable():  # as most are
        return text
    return _HIDDEN.sub(lambda found: sign(found[0]), text)


def without_hidden(text: str) -> str:
    """The text without those characters; on a terminal's screen they take no place."""
    return _HIDDEN.sub("", text)


def one_line(text: str, longest: int) -> str:
    """The beginning of the text as one visible line."""
    line = _BREAKS.sub(lambda found: sign(found[0]), visible(text[: longest + 1]))
    return line if len(text) <= longest else f"{line}…"


def hanging(text: str, indent: int = 4) -> str:
    """The visible text with all lines but the first indented, so that none can be taken for a line of its own."""
    return visible(text).replace("\n", "\n" + " " * indent)


def escaped(written: str) -> str:
    """JSON that shows nothing but visible text and means the same."""
    return _HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], written)


def sign(char: str) -> str:
    """What stands for a character that is not shown itself: ``␛``, ``␡``, ``⟨U+009B⟩``."""
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
