"""Reads a menu on a screen: its choices in words, which of them is highlighted, and which key takes one.

A menu may have a pointer, radio buttons, numbers, a frame, or colours alone; it may be longer than its window, or in
one line: ``(Y)es/(N)o``, ``[y/n]``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, takewhile

from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.tmux.pane import comparable


@dataclass(frozen=True)
class MenuChoice:
    """One choice."""

    words: str
    """As a person would say it: without number, marks and keys."""
    row: int
    """The screen's row in which it begins."""
    key: str = ""
    """What is typed for it where nothing is highlighted."""
    checked: bool | None = None
    """Whether it is ticked; None if it has no box."""


@dataclass(frozen=True)
class Menu:
    """The choices that can be seen, from the top."""

    choices: tuple[MenuChoice, ...]
    highlighted: int | None = None
    """The place of the choice that Enter would take; None if a key is typed instead."""
    more_above: bool = False
    more_below: bool = False
    """There are choices that cannot be seen."""
    typed: str = ""
    """What stands behind choices that are typed."""
    above: str = ""
    """The characters of what stands above the choices: by them a question is known again."""

    @property
    def state(self) -> tuple[object, ...]:
        """What a key changes."""
        return self.words, self.highlighted, self.typed, *(choice.checked for choice in self.choices)

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(choice.words for choice in self.choices)

    @property
    def is_of_boxes(self) -> bool:
        """Whether more than one choice may be taken."""
        return any(choice.checked is not None for choice in self.choices)

    @property
    def offered(self) -> tuple[str, ...]:
        """The choices that are an answer: where there are boxes, those with a box."""
        return tuple(one.words for one in self.choices if one.checked is not None or not self.is_of_boxes)

    def is_answered(self, screen: Screen) -> bool:
        """Whether the program took what was typed: its cursor has left the last row, which still shows the question."""
        return bool(self.typed) and screen.cursor[1] >= len(screen.text.split("\n"))

    def find(self, is_wanted: Callable[[str], bool]) -> int | None:
        """The place of the first choice with wanted words."""
        return next((place for place, choice in enumerate(self.choices) if is_wanted(choice.words)), None)


def read_menu(screen: Screen, top: int = 0, end: int | None = None) -> Menu | None:
    """The lowest menu between these rows of the screen, of which the first may be one of its choices."""
    while top > 0 and screen.lines[top - 1]:
        top -= 1
    rows = _rows(screen, top, end)
    found = [menu for menu in (_inline_menu(rows) or _typed_menu(rows), _highlighted_menu(rows)) if menu]
    lowest = max(found, key=lambda menu: menu.choices[-1].row, default=None)
    return replace(lowest, above=_above(screen, lowest.choices[0].row)) if lowest else None


def _above(screen: Screen, row: int) -> str:
    """The lowest rows above this one that are not blank."""
    texts = dropwhile(lambda text: not text, (_unframed(line, 0)[0] for line in reversed(screen.lines[:row])))
    return comparable(" ".join(list(takewhile(bool, texts))[::-1]))


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_FRAME = "[│┃║┆┊▌▐█▄▀▏▕]"
_OPENED, _SHUT = re.compile(rf"^\s*{_FRAME}(?:\s*{_FRAME})*(?= |$)"), re.compile(rf"\s*{_FRAME}(?:\s*{_FRAME})*$")
_RULE = re.compile(r"^\W*[─━═╌╍┄┈▔▁_-]{3,}\W*$")
#: How many cells a program may leave free at the end of a row that it wraps.
_SLACK = 3
_MARK = r"\[[^\[\]\n]\]|\([ xX•●*]\)|[●◉⦿◍○◯◌◎☐☑☒✔✓]"
_ROW = re.compile(
    r"^\s*(?:(?P<pointer>[\u276f\u203a>▶►▸→➜➤⏵»])\s+|(?P<scroll>[↑↓▲▼△▽⌃⌄])\s+)?"
    rf"(?:(?P<mark>{_MARK})\s+)?(?:(?P<number>\d{{1,2}})[.):]\s+)?(?:(?P<box>{_MARK})\s+)?(?P<label>\S.*)$"
)
_TICKED = re.compile(r"[✔✓xX☑☒●◉⦿◍•*]")
_CURRENT = ("✔", "✓")
"""They mark what is set now, and are no boxes."""
_KEY_BEHIND = re.compile(r"\s*\((?:\w|esc|tab|enter|space|(?:shift|ctrl|alt|cmd)[+-]\w+)\)$", re.IGNORECASE)
_ASIDE = re.compile(r"\s*(?:[✔✓]|\((?:recommended|default|current)\))$", re.IGNORECASE)
_MORE_ABOVE = re.compile(r"^\s*(?:[↑▲△⌃]|(?:\.\.\.|…)\s*$)|\bmore above\b", re.IGNORECASE)
_MORE_BELOW = re.compile(r"^\s*(?:[↓▼▽⌄]|\.\.\.|…)|\bmore below\b", re.IGNORECASE)


@dataclass(frozen=True)
class _Row:
    """One row, without its frame; what is left stands where it stood."""

    at: int
    text: str
    is_lit: bool
    is_full: bool
    """The first word of the next row had no room in it."""

    @property
    def ends_block(self) -> bool:
        return not self.text or _RULE.match(self.text) is not None

    @property
    def parts(self) -> re.Match[str]:
        found = _ROW.match(self.text)
        assert found, "a row that is not blank"
        return found

    @property
    def column(self) -> int:
        """Where the words begin."""
        return self.parts.start("label")

    @property
    def number(self) -> int | None:
        return int(self.parts["number"]) if self.parts["number"] else None

    @property
    def is_on(self) -> bool:
        """Whether its radio button is the full one."""
        mark = self.parts["mark"]
        return bool(mark and mark not in _CURRENT and _TICKED.search(mark))


def _rows(screen: Screen, top: int, end: int | None) -> list[_Row]:
    last = min(len(screen.text.split("\n")), len(screen.lines) if end is None else end)
    plain = [_unframed(line, screen.width) for line in screen.lines[:last]]
    following = [*(text.split(maxsplit=1)[0] if text else "" for text, _ in plain[1:]), ""]
    return [
        _Row(at, text, at in screen.lit, bool(text and word) and _cells(text) + 1 + _cells(word) > room - _SLACK)
        for at, ((text, room), word) in enumerate(zip(plain, following, strict=True))
        if at >= top
    ]


def _unframed(line: str, width: int) -> tuple[str, int]:
    """The row without its frame, and how many cells it has for text."""
    opened = _OPENED.match(line)
    if opened is None:
        return line, width
    shut = _SHUT.search(line, opened.end())
    inside = line[: shut.start()] if shut else line
    room = _cells(line) - len("".join(shut[0].split())) if shut else width
    return (" " * opened.end() + inside[opened.end() :]).rstrip(), room


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _blocks(rows: Sequence[_Row]) -> list[list[_Row]]:
    """The rows between blank ones and rules; a number that goes on after one blank row goes on in its block."""
    blocks: list[list[_Row]] = []
    before: _Row | None = None
    for row in rows:
        if not row.ends_block:
            is_next = before is not None and not before.ends_block
            is_after_gap = before is not None and not before.text
            if is_next or (is_after_gap and blocks and _goes_on(blocks[-1], row)):
                blocks[-1].append(row)
            else:
                blocks.append([row])
        before = row
    return blocks


def _goes_on(block: Sequence[_Row], row: _Row) -> bool:
    last = next((above.number for above in reversed(block) if above.number), None)
    return last is not None and row.number == last + 1 and row.at == block[-1].at + 2


# ── a menu with a highlighted choice ─────────────────────────────────────────────────────────────────────────────────


def _highlighted_menu(rows: Sequence[_Row]) -> Menu | None:
    """The menu in the lowest block in which one choice is highlighted."""
    menus = (_menu_around(block, head) for block in reversed(_blocks(rows)) for head in _heads(block))
    return next((menu for menu in menus if menu), None)


def _heads(block: Sequence[_Row]) -> list[_Row]:
    """The rows that may be highlighted, the lowest first: by a pointer, else by a radio button, else by colours."""
    pointed = [row for row in block if row.parts["pointer"]]
    return (pointed or [row for row in block if row.is_on] or [row for row in block if row.is_lit])[::-1]


def _menu_around(block: Sequence[_Row], head: _Row) -> Menu | None:
    chosen = _numbered(block, head) or _aligned(block, head)
    others = [row for row in chosen if row is not head]
    is_numbered = any(row.number for row in chosen)
    has_pointer = bool(head.parts["pointer"])
    if has_pointer:
        is_alone = not any(row.parts["pointer"] for row in others)
    elif head.is_on:
        is_alone = not any(row.is_on for row in others) and (is_numbered or all(row.parts["mark"] for row in others))
    else:
        is_alone = not any(row.is_lit for row in others)
    if not is_alone or not (others or is_numbered):
        return None
    top, bottom = block.index(chosen[0]), block.index(chosen[-1])
    return Menu(
        tuple(_choice(block, row, chosen, has_boxes=has_pointer) for row in chosen),
        chosen.index(head),
        more_above=any(_MORE_ABOVE.search(row.text) for row in block[max(top - 1, 0) : top + 1]),
        more_below=any(_MORE_BELOW.search(row.text) for row in block[bottom:][-2:]),
    )


def _numbered(block: Sequence[_Row], head: _Row) -> list[_Row]:
    """The rows of the head's run of numbers, and those behind it that confirm ticks; none without numbers."""
    runs: list[list[_Row]] = []
    for row in block:
        if row.number is None:
            continue
        if runs and row.number == (runs[-1][-1].number or 0) + 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    run = next((run for run in reversed(runs) if head in run or run[-1].at < head.at), [])
    if not run or (head.number is not None and head not in run):
        return []
    box = run[-1].parts.start("box")
    behind = [row for row in block if row.at > run[-1].at and (row is head or row.column == box)]
    return [*run, *behind]


def _aligned(block: Sequence[_Row], head: _Row) -> list[_Row]:
    """The rows whose words stand below each other; what is indented more belongs to the choice above it."""
    first = block.index(head)
    while first > 0 and block[first - 1].column >= head.column and not block[first - 1].text.endswith(("?", ":")):
        first -= 1
    found = []
    for place, row in enumerate(block[first:], first):
        if row.column < head.column:
            break
        is_wrapped = place > first and block[place - 1].is_full and row is not head
        if row.column == head.column and not is_wrapped:
            found.append(row)
    return found


def _choice(block: Sequence[_Row], row: _Row, chosen: Sequence[_Row], *, has_boxes: bool) -> MenuChoice:
    words = _words(row.parts["label"])
    for before, below in zip(block[block.index(row) :], block[block.index(row) + 1 :], strict=False):
        if below in chosen or not before.is_full:
            break
        words += " " + _words(below.parts["label"])
    mark = row.parts["box"] or (row.parts["mark"] if has_boxes else None)
    checked = None if mark is None or mark in _CURRENT else bool(_TICKED.search(mark))
    return MenuChoice(plain_words(words), row.at, checked=checked)


def plain_words(label: str) -> str:
    """The label without the key and the remark behind it."""
    return _ASIDE.sub("", _KEY_BEHIND.sub("", label))


def _words(label: str) -> str:
    """The label without a description in a column beside it."""
    return re.split(r"\s{2,}", label.strip(), maxsplit=1)[0]


# ── a menu whose choices are typed ───────────────────────────────────────────────────────────────────────────────────

_WORDS = {"y": "Yes", "n": "No"}
#: What stands behind the choices in the last row: a default, a colon, and the little that is typed already.
_ANSWERED = r"[^\S\n]*(?:\[[^\]\n]*\])?[^\S\n]*[:?>»]?[^\S\n]*(?P<typed>\S{0,5})$"
_SPELLED = re.compile(rf"(\(\w\)[^()\[\]/:\n]*(?:/\(\w\)[^()\[\]/:\n]*)+){_ANSWERED}")
_SHORT = re.compile(rf"[\[(]\s*(\[?\w+\]?(?:\s?[/|]\s?\[?\w+\]?)+)\s*[\])]{_ANSWERED}")
_LISTED = re.compile(r"^\s*[\[(]?(?P<key>\d{1,2}|[a-zA-Z])[\]).:]\s+(?P<label>\S.*)$")
_PROMPT = re.compile(r"[:?>»#\])]\s*(?P<typed>\S{0,5})$")


def _inline_menu(rows: Sequence[_Row]) -> Menu | None:
    """The choices in the last row, which may have been wrapped."""
    if not rows or rows[-1].ends_block:
        return None
    last, text = rows[-1], rows[-1].text
    for above in rows[-2:-4:-1]:
        if not above.is_full:
            break
        text = f"{above.text} {text.lstrip()}"
    if spelled := _SPELLED.search(text):
        found, pairs = spelled, [(part[1], f"{part[1]}{part[3:]}".strip()) for part in spelled[1].split("/")]
    elif short := _SHORT.search(text):
        keys = re.findall(r"\w+", short[1])
        found, pairs = short, [(key.lower(), _WORDS.get(key.lower(), key)) for key in keys]
    else:
        return None
    choices = tuple(MenuChoice(words, last.at, key=key.lower()) for key, words in pairs)
    return Menu(choices, typed=found["typed"])


def _typed_menu(rows: Sequence[_Row]) -> Menu | None:
    """A list above a last row that takes the number or the letter of a choice."""
    prompt = None if len(rows) < 3 or rows[-1].ends_block else _PROMPT.search(rows[-1].text)
    if prompt is None:
        return None
    above = [row for row in rows[:-1] if not row.ends_block]
    listed: list[MenuChoice] = []
    for row in reversed(above):
        found = _LISTED.match(row.text)
        if found is None:
            if listed:
                break
            continue
        listed.insert(0, MenuChoice(plain_words(_words(found["label"])), row.at, key=found["key"]))
        if found["key"] in "1aA":
            break
    near = bool(listed) and rows[-1].at - listed[-1].row <= 3
    return Menu(tuple(listed), typed=prompt["typed"]) if near and len(listed) > 1 and listed[0].key in "1aA" else None
