"""Answers what a program asks: by the words of a choice, which is seen to be highlighted before Enter is pressed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from enum import Enum

from torch_tasks.model.task import Question
from torch_tasks.workers.programs.config import AnswersConfig, DialogConfig
from torch_tasks.workers.programs.menu import Menu, plain_words, read_menu
from torch_tasks.workers.programs.questions import ChosenAnswer
from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.tmux.pane import AgentPane, comparable

log = logging.getLogger(__name__)

MenuFinder = Callable[[Screen], Menu | None]
"""The menu of a question on a screen; None if the question is not there any more."""

#: How long a program may take to move its highlight, and to show what another key did.
_MOVE_SECONDS, _ECHO_SECONDS = 3.0, 1.0
#: After how long a menu that is asked for is drawn whole.
_DRAW_SECONDS = 3.0
#: How long the same is shown when it has.
_STILL_SECONDS = 0.2
#: How many keys are pressed at most on the way to a choice.
_MOST_MOVES = 60
#: How often Enter is pressed at most while nothing shows that the program took it.
_MOST_ENTERS = 4
_TEXT = "{text}"


class Answered(Enum):
    """What became of an answer."""

    GIVEN = "given"
    NO_SUCH_CHOICE = "the menu has no such choice"
    NOT_GIVEN = "it is not asked any more, a person types, or the program does not show what a key did"


class Answerer:
    """Gives one answer in one pane: moves, looks, moves, and presses Enter only on what it sees highlighted.

    It gives up when what stands above the choices changes: then something else is asked.
    """

    def __init__(self, pane: AgentPane, find: MenuFinder) -> None:
        self._pane = pane
        self._find = find
        self._slowest = 0.0
        """How long the slowest move took to show."""
        self._above: str | None = None
        """What stands above the choices."""

    def choose(self, is_wanted: Callable[[str], bool], keys: Sequence[str] = (), text: str = "") -> Answered:
        """Take the first choice with wanted words: press the keys on it (unset: Enter); ``{text}`` pastes the text."""
        passed: set[str] = set()
        drawn_by = time.monotonic() + _DRAW_SECONDS
        for _ in range(_MOST_MOVES):
            screen, menu = self._awaited()
            if screen is None or menu is None:
                return Answered.NOT_GIVEN
            place = menu.find(is_wanted)
            if menu.highlighted is None and place is not None:
                return self._type(screen, menu, menu.choices[place].key)
            if menu.highlighted is not None and place == menu.highlighted:
                if not self._rests_on(menu):
                    continue
                return self.press(keys, text) if keys else self._enter()
            key = _way(menu, place, passed)
            if menu.highlighted is None or key is None:
                if not self._changes(menu, drawn_by):
                    return Answered.NO_SUCH_CHOICE
                continue
            passed.add(menu.choices[menu.highlighted].words)
            if not self._move(screen, menu, key):
                return Answered.NOT_GIVEN
        return Answered.NOT_GIVEN

    def tick(self, is_wanted: Callable[[str], bool], keys: Sequence[str]) -> Answered:
        """Have the wanted choices ticked, and no others: press the keys on each that is to change."""
        for _ in range(_MOST_MOVES):
            menu = self._awaited()[1]
            if menu is None:
                return Answered.NOT_GIVEN
            wrong = [one for one in menu.choices if one.checked is not None and one.checked != is_wanted(one.words)]
            if not wrong:
                return Answered.GIVEN
            answered = self.choose(wrong[0].words.__eq__, keys)
            if answered is not Answered.GIVEN:
                return answered
        return Answered.NOT_GIVEN

    def _awaited(self) -> tuple[Screen | None, Menu | None]:
        """The menu, which may be drawn in a moment."""
        deadline = time.monotonic() + _ECHO_SECONDS
        while True:
            screen = Screen.of(self._pane)
            menu = self._find(screen) if screen else None
            if menu or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if menu and self._above is None:
            self._above = menu.above
        return screen, menu if menu and menu.above == self._above else None

    def press(self, keys: Sequence[str], text: str = "") -> Answered:
        """Press the keys without looking at what is highlighted, but Enter only on the text that was pasted."""
        for place, key in enumerate(keys):
            screen = Screen.of(self._pane)
            if screen is None or (key == "Enter" and _TEXT in keys[:place] and not _shows(screen, text)):
                return Answered.NOT_GIVEN
            if not self._press(screen, key, text):
                return Answered.NOT_GIVEN
        return Answered.GIVEN

    def _move(self, screen: Screen, menu: Menu, key: str) -> bool:
        if not self._pane.type_unless_used(screen.used_at, keys=[key]):
            return False
        seconds = _await_change(self._seen, menu.state, _MOVE_SECONDS)
        self._slowest = max(self._slowest, _MOVE_SECONDS if seconds is None else seconds)
        return True

    def _enter(self) -> Answered:
        """Press Enter, and again if the words on screen stay: a program may ignore what comes the moment it asks."""
        for _ in range(_MOST_ENTERS):
            before = self._said()
            answered = self.press(("Enter",))
            is_ignored = self._said() == before and _await_change(self._said, before, _MOVE_SECONDS) is None
            if answered is not Answered.GIVEN or not is_ignored:
                return answered
        return Answered.NOT_GIVEN

    def _said(self) -> str:
        """The letters and figures on the screen, and the state of its menu: no colour, and no mark that blinks."""
        screen = Screen.of(self._pane)
        words = "".join(filter(str.isalnum, screen.text)) if screen else ""
        return f"{words} {self._seen()}"

    def _changes(self, menu: Menu, drawn_by: float) -> bool:
        """Whether the menu changes before that moment: one that has just appeared may not be drawn whole yet."""
        return _await_change(self._seen, menu.state, drawn_by - time.monotonic()) is not None

    def _rests_on(self, menu: Menu) -> bool:
        """Whether the same is highlighted after as long as the slowest move took: no move is still on its way."""
        time.sleep(self._slowest)
        return self._seen() == menu.state

    def _seen(self) -> object:
        screen = Screen.of(self._pane)
        menu = self._find(screen) if screen else None
        return menu and menu.state

    def _type(self, screen: Screen, menu: Menu, key: str) -> Answered:
        """Type a choice's own key, and Enter if the program shows the key and waits."""
        if menu.typed or not self._press(screen, key):
            return Answered.NOT_GIVEN
        after = Screen.of(self._pane)
        if after and _last_row(after) == _last_row(screen) + key:
            return Answered.GIVEN if self._press(after, "Enter") else Answered.NOT_GIVEN
        asked = self._find(after) if after else None
        return Answered.NOT_GIVEN if asked and asked.typed else Answered.GIVEN  # the program took the key at once

    def _press(self, screen: Screen, key: str, text: str = "") -> bool:
        """Press one key, unless a person pressed one since the screen was seen, and wait for what it shows."""
        before = self._pane.drawn()
        pasted, keys = (text, ()) if key == _TEXT else ("", (key,))
        typed = self._pane.type_unless_used(screen.used_at, text=pasted, keys=keys)
        if typed:
            _await_change(self._pane.drawn, before, _ECHO_SECONDS)
        return typed


def _last_row(screen: Screen) -> str:
    return "".join(screen.bottom(1)[0].split())


def _way(menu: Menu, place: int | None, passed: set[str]) -> str | None:
    """The key that leads to the choice, or to where it may be; None if it is nowhere."""
    if menu.highlighted is None:
        return None
    if place is not None:
        return "Down" if place > menu.highlighted else "Up"
    if menu.more_below and menu.choices[-1].words not in passed:
        return "Down"
    return "Up" if menu.more_above and menu.choices[0].words not in passed else None


def _shows(screen: Screen, text: str) -> bool:
    return comparable(text)[-_END:] in comparable(screen.text)


#: So many characters of a text's end are looked for.
_END = 40


def _await_change(read: Callable[[], object], before: object, seconds: float) -> float | None:
    """Wait until something else is read, and the same for a while; how long it took to change, None if it did not."""
    seen, begun = before, time.monotonic()
    since, took = begun, None
    while (moment := time.monotonic()) < begun + seconds and (seen == before or moment < since + _STILL_SECONDS):
        time.sleep(0.02)
        if (shown := read()) != seen:
            if took is None:
                took = time.monotonic() - begun
            seen, since = shown, time.monotonic()
    return took


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def permit(answerer: Answerer, answers: AnswersConfig, *, allowed: bool) -> Answered:
    """Give or refuse a permission for this once: a choice that changes something for later is never taken."""
    reply = answers.allow if allowed else answers.deny
    if reply.choose is None:
        return answerer.press(reply.keys, answers.reason)
    is_meant = fits(reply.choose)
    return answerer.choose(
        lambda words: is_meant(words) and not answers.lasting.search(words), reply.keys, answers.reason
    )


def give(answerer: Answerer, answers: AnswersConfig, question: Question, reply: ChosenAnswer) -> Answered:
    """Give a person's answer to the question."""
    if reply.text and answers.text and answers.text.choose:
        meant, keys = fits(answers.text.choose), answers.text.keys
    else:
        said = [says(question.choices[number - 1]) for number in reply.numbers]
        meant, keys = lambda words: any(is_said(words) for is_said in said), ()
    if not question.several:
        return answerer.choose(meant, keys, reply.text)
    answered = answerer.tick(meant if not reply.text else _nothing, answers.tick)
    if answered is Answered.GIVEN and reply.text:
        answered = answerer.choose(meant, [key for key in keys if key != "Enter"], reply.text)
    return answerer.choose(fits(answers.confirm)) if answered is Answered.GIVEN else answered


def _nothing(_: str) -> bool:
    return False


# ── known dialogs ────────────────────────────────────────────────────────────────────────────────────────────────────

#: A dialog that is still shown after so long did not take the answer.
_AGAIN_SECONDS = 2.0


class Dialogs:
    """The known dialogs of one program; each is answered when it appears, and again while it stays."""

    def __init__(self, dialogs: Sequence[DialogConfig]) -> None:
        self._dialogs = dialogs
        self._last: tuple[DialogConfig, float] | None = None

    def find(self, screen: Screen, ours: str) -> DialogConfig | None:
        """The known dialog on the screen; what the text that Torch typed quotes is none, nor what was answered."""
        for dialog in self._dialogs:
            found = dialog.pattern.search(screen.text)
            if found and comparable(found[0]) not in comparable(ours):
                menu = dialog_menu(screen, dialog)
                return None if menu and menu.is_answered(screen) else dialog
        return None

    def answer(self, pane: AgentPane, screen: Screen, ours: str) -> None:
        """Answer the dialog on the screen, if it is a known one."""
        known = self.find(screen, ours)
        if known is None:
            return
        moment = time.monotonic()
        if self._last and self._last[0] is known and moment - self._last[1] < _AGAIN_SECONDS:
            return
        answerer = Answerer(pane, lambda now: dialog_menu(now, known) if self.find(now, ours) is known else None)
        if known.choose is None:
            answered = answerer.press(known.keys)
        else:
            answered = answerer.choose(fits(known.choose), known.keys)
        self._last = (known, time.monotonic())
        log.info("the dialog %s: %s", known.note or known.pattern.pattern, answered.value)


def dialog_menu(screen: Screen, dialog: DialogConfig) -> Menu | None:
    """The menu of this dialog, which stands below the beginning of what its pattern matches."""
    found = dialog.pattern.search(screen.text)
    return read_menu(screen, screen.text.count("\n", 0, found.start())) if found else None


def fits(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    """Whether a choice's words are, from the first to the last, those that the pattern means."""
    return lambda words: pattern.fullmatch(words) is not None


def says(words: str) -> Callable[[str], bool]:
    """Whether a choice has these words; the program may draw blanks and symbols in its own way, and cut a long end."""
    wanted = comparable(plain_words(words)).casefold().rstrip(".")

    def is_said(shown: str) -> bool:
        cut = shown.removesuffix("\u2026")
        seen = comparable(cut).casefold().rstrip(".")
        return seen == wanted or (cut != shown and bool(seen) and wanted.startswith(seen))

    return is_said
