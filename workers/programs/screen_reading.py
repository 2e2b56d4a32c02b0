"""What a pane shows of its program's state, by the rules of the kind's TOML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.visible_text import one_line
from torch_tasks.workers.programs.config import KindConfig, RuleConfig
from torch_tasks.workers.programs.kind import StateReading
from torch_tasks.workers.programs.menu import read_menu
from torch_tasks.workers.programs.reset_time import reset_time
from torch_tasks.workers.programs.screen import Composer, Screen
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

    @property
    def last_line(self) -> str:
        """The last line that is not blank, cut to what a table can show."""
        last = next((line.strip() for line in reversed(self.screen.lines) if line.strip()), "(nothing)")
        return one_line(last, _TOLD)

    @property
    def above(self) -> str:
        """The text above the composer."""
        return "\n".join(self.screen.lines[: self.composer.top])

    def above_with_history(self, pane: AgentPane) -> str:
        """The same with what has left the screen at its top."""
        history = pane.screen(_HISTORY).split("\n")
        below = len(self.screen.text.split("\n")) - self.composer.top
        return "\n".join(history[: len(history) - below] if below > 0 else history)


#: How many lines above the screen are looked through.
_HISTORY = 3000
#: How much of a screen that no rule knows is told.
_TOLD = 200
#: How many rows a region without a number has.
_ROWS = {"bottom": 10, "above composer": 6}
#: What the program only says outside its composer: a text in the composer may quote it.
_SAID_OUTSIDE = frozenset({AgentState.WAITING, AgentState.LOGIN, AgentState.LIMITED, AgentState.ERROR})


class ScreenRules:
    """The kind's rules for reading its screen."""

    def __init__(self, config: KindConfig) -> None:
        self._rules = sorted(config.rules, key=lambda rule: -rule.priority)

    def read(self, screen: Screen, composer: Composer, at: datetime | None = None) -> StateReading:
        """The state by the most important rule that matches; unknown, so that nothing is typed, if none does."""
        for rule in self._rules:
            if reading := _apply(rule, screen, composer, at or now()):
                return reading
        return StateReading(AgentState.UNKNOWN, "screen", "no rule fits")


def _apply(rule: RuleConfig, screen: Screen, composer: Composer, at: datetime) -> StateReading | None:
    region = _region(rule.where, screen, composer)
    if region is None:
        return None
    found = _find(rule, region, composer)
    if found is None or (rule.unless and rule.unless.search(region.text)):
        return None
    groups = {name: " ".join(text.split()) for name, text in found.groupdict().items() if text}
    question = None
    if rule.state is AgentState.WAITING:
        choices = _choices(rule, region, found, screen, composer)
        asked = groups.get("question") or " ".join(found[0].split())
        question = Question(text=asked, choices=choices, subject=groups.get("subject", ""))
    until = reset_time(groups["until"], at) if "until" in groups else None
    return StateReading(rule.state, "title" if rule.where == "title" else "screen", rule.name, question, until)


def _choices(
    rule: RuleConfig, region: _Region, found: re.Match[str], screen: Screen, composer: Composer
) -> tuple[str, ...]:
    """The choices that the program offers below the question."""
    if rule.choices:
        matches = rule.choices.finditer(region.text[found.start() :])
        return tuple(match[match.re.groups and 1].strip() for match in matches)
    menu = read_menu(screen, region.row(found.start()) or 0, composer.top if composer.seen else None)
    return menu.words if menu else ()


class _Region(NamedTuple):
    """The part of the pane that a rule reads."""

    text: str
    top: int | None = None
    """The screen's row in which it begins, if it is a part of the screen."""

    def row(self, place: int) -> int | None:
        """The screen's row of the character at this place in the text."""
        return None if self.top is None else self.top + self.text.count("\n", 0, place)


def _find(rule: RuleConfig, region: _Region, composer: Composer) -> re.Match[str] | None:
    """Where the rule's pattern first matches something that the program itself says."""
    for found in rule.pattern.finditer(region.text):
        begins = found.start("question") if "question" in rule.pattern.groupindex else found.start()
        row = region.row(max(begins, found.start()))
        quoted = composer.seen and row is not None and composer.top <= row < composer.end
        if not (quoted and rule.state in _SAID_OUTSIDE):
            return found
    return None


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
