"""What a pane shows of its program's state, by the rules of the kind's TOML."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Self

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.visible_text import one_line
from torch_tasks.workers.programs.config import KindConfig, RuleConfig
from torch_tasks.workers.programs.kind import StateReading
from torch_tasks.workers.programs.menu import Menu, read_menu
from torch_tasks.workers.programs.reset_time import reset_time
from torch_tasks.workers.programs.screen import Composer, Screen, read_composer
from torch_tasks.workers.programs.unknown_menu import asked_above, unless_menu
from torch_tasks.workers.tmux.pane import AgentPane


@dataclass(frozen=True)
class ScreenReading:
    """The pane at one moment, and the state of its program."""

    screen: Screen
    composer: Composer
    by_screen: StateReading
    """The state by the screen alone."""
    best: StateReading
    """The state by the best source."""

    @classmethod
    def of(cls, screen: Screen, composer: Composer, by_screen: StateReading, status: StateReading | None) -> Self:
        """The reading by the best source, which is the live ``status`` if there is one.

        Of what covers the input line, the last line is quoted.
        """
        view = cls(screen, composer, by_screen, _best(status, by_screen))
        if composer.seen:
            return view
        return replace(view, best=replace(view.best, shows=view.last_line))

    @property
    def last_line(self) -> str:
        """The last line that is not blank, cut to what a table can show."""
        last = next((line.strip() for line in reversed(self.screen.lines) if line.strip()), "(nothing)")
        return one_line(last, _TOLD)

    def explain(self, status: StateReading | None) -> list[tuple[str, str]]:
        """Each source and what it shows, the decisive one first."""
        best, composer = self.best, self.composer
        content = f"holds {composer.text!r}" if composer.text else "empty"
        return [
            (best.source, f"{best.state} ({best.rule})"),
            ("live source", f"{status.state} ({status.source}: {status.rule})" if status else "none"),
            ("screen", f"{self.by_screen.state} ({self.by_screen.rule})"),
            *([("menu", best.offers.in_words)] if best.offers else []),
            ("title", self.screen.title),
            ("composer", content if composer.seen else "not seen"),
        ]

    @property
    def above(self) -> str:
        """The text above the composer."""
        return "\n".join(self.screen.lines[: self.composer.top])

    def above_with_history(self, pane: AgentPane) -> str:
        """The same with what has left the screen at its top."""
        history = pane.screen(_HISTORY).split("\n")
        below = len(self.screen.text.split("\n")) - self.composer.top
        return "\n".join(history[: len(history) - below] if below > 0 else history)


def _best(status: StateReading | None, by_screen: StateReading) -> StateReading:
    """The live source decides; only the question may come from the screen."""
    if status is None:
        return by_screen
    if status.state is AgentState.WAITING and status.question is None and by_screen.question:
        return replace(status, question=by_screen.question)
    return status


#: How many lines above the screen are looked through.
_HISTORY = 3000
#: How much of a screen that no rule knows is quoted.
_TOLD = 200
#: How many rows a region without a number has.
_ROWS = {"bottom": 10, "above composer": 6}
#: What the program only says outside its composer: a text in the composer may quote it.
_SAID_OUTSIDE = frozenset({AgentState.WAITING, AgentState.LOGIN, AgentState.LIMITED, AgentState.ERROR})


class ScreenRules:
    """The kind's rules for reading its screen."""

    def __init__(self, config: KindConfig) -> None:
        self._rules = sorted(config.rules, key=lambda rule: -rule.priority)
        self._lasting = config.answers.lasting
        self._composer = config.composer

    def read(self, screen: Screen, composer: Composer, at: datetime | None = None) -> StateReading:
        """The state by the most important rule that matches; unknown, so that nothing is typed, if none does."""
        matching = self._matching(screen, composer)
        if matching is None:
            offers = None if composer.seen else self._offered(screen)
            return StateReading(AgentState.UNKNOWN, "screen", "no rule fits", offers=offers)
        rule, region, found = matching
        groups = {name: " ".join(text.split()) for name, text in found.groupdict().items() if text}
        question = None
        if rule.state is AgentState.WAITING:
            menu = _menu_below(region, found, screen, composer)
            text = groups.get("question") or " ".join(found[0].split())
            question = self._question(text, menu).model_copy(update={"subject": groups.get("subject", "")})
        until = reset_time(groups["until"], at or now()) if "until" in groups else None
        return StateReading(rule.state, "title" if rule.where == "title" else "screen", rule.name, question, until)

    def _offered(self, screen: Screen) -> Question | None:
        """The menu that no rule knows, as a question."""
        menu = read_menu(screen)
        return self._question(asked_above(menu, screen), menu) if menu and len(menu.choices) > 1 else None

    def _question(self, text: str, menu: Menu | None) -> Question:
        choices = menu.offered if menu else ()
        lasting = tuple(number for number, words in enumerate(choices, 1) if self._lasting.search(words))
        return Question(text=text, choices=choices, several=menu is not None and menu.is_of_boxes, lasting=lasting)

    def menu(self, screen: Screen) -> Menu | None:
        """The menu of the question that the program asks; None if the screen shows that it asks none."""
        composer = unless_menu(read_composer(screen, self._composer), screen)
        matching = self._matching(screen, composer)
        if matching is None:
            return None if composer.seen else read_menu(screen)
        rule, region, found = matching
        return _menu_below(region, found, screen, composer) if rule.state is AgentState.WAITING else None

    def _matching(self, screen: Screen, composer: Composer) -> _Match | None:
        for rule in self._rules:
            region = _region(rule.where, screen, composer)
            found = _find(rule, region, screen, composer) if region else None
            if region and found and not (rule.unless and rule.unless.search(region.text)):
                return _Match(rule, region, found)
        return None


class _Match(NamedTuple):
    """The rule that decides, and where."""

    rule: RuleConfig
    region: _Region
    found: re.Match[str]


def _menu_below(region: _Region, found: re.Match[str], screen: Screen, composer: Composer) -> Menu | None:
    """The menu below the question."""
    return read_menu(screen, region.row(found.start()) or 0, composer.top if composer.seen else None)


class _Region(NamedTuple):
    """The part of the pane that a rule reads."""

    text: str
    top: int | None = None
    """The screen's row in which it begins, if it is a part of the screen."""

    def row(self, place: int) -> int | None:
        """The screen's row of the character at this place in the text."""
        return None if self.top is None else self.top + self.text.count("\n", 0, place)


def _find(rule: RuleConfig, region: _Region, screen: Screen, composer: Composer) -> re.Match[str] | None:
    """Where the rule's pattern first matches something that the program itself says."""
    for found in rule.pattern.finditer(region.text):
        begins = found.start("question") if "question" in rule.pattern.groupindex else found.start()
        row = region.row(max(begins, found.start()))
        quoted = composer.seen and row is not None and composer.top <= row < composer.end
        if quoted and rule.state in _SAID_OUTSIDE:
            continue
        if not _is_past(rule, region, found, screen, composer):
            return found
    return None


def _is_past(rule: RuleConfig, region: _Region, found: re.Match[str], screen: Screen, composer: Composer) -> bool:
    """Whether a question is only quoted, or was answered: it stands above an input line that waits for a prompt.

    So is one whose answer the program took while nothing is below it yet.
    What is typed there may be the answer if the question offers it, as ``[y/n]``.
    """
    first, last = region.row(found.start()), region.row(found.end())
    typed = read_menu(screen, first) if rule.state is AgentState.WAITING and first is not None else None
    if typed and typed.is_answered(screen):
        return True
    is_above = composer.is_empty and first is not None and last is not None and last < composer.top
    if rule.state is not AgentState.WAITING or rule.where.startswith("above composer") or not is_above:
        return False
    menu = read_menu(screen, first or 0, (last or 0) + 1)
    return menu is None or menu.highlighted is not None


def _region(where: str, screen: Screen, composer: Composer) -> _Region | None:
    name = where.rstrip("0123456789 ")
    count = int(where[len(name) :] or 0) or _ROWS.get(name, 0)
    match name:
        case "title":
            return _Region(screen.title)
        case "composer":
            return _Region(composer.text, composer.top) if composer.seen else None
        case "bottom":
            rows = screen.bottom(count)
            return _Region("\n".join(rows), len(screen.text.split("\n")) - len(rows))
        case "above composer":
            top = max(composer.top - count, 0)
            return _Region("\n".join(screen.lines[top : composer.top]), top)
        case _:
            return _Region(screen.text, 0)
