"""What a pane shows of its program's state, by the rules of the kind's TOML."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.workers.programs.config import KindConfig, RuleConfig
from torch_tasks.workers.programs.kind import StateReading
from torch_tasks.workers.programs.reset_time import reset_time
from torch_tasks.workers.programs.screen import Composer, Screen


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
    def above(self) -> str:
        """The text above the composer."""
        return "\n".join(self.screen.lines[: self.composer.top])


#: How many rows a region without a number has.
_ROWS = {"bottom": 10, "above composer": 6}


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
    found = rule.pattern.search(region)
    if found is None or (rule.unless and rule.unless.search(region)):
        return None
    groups = {name: " ".join(text.split()) for name, text in found.groupdict().items() if text}
    question = None
    if rule.state is AgentState.WAITING:
        below = region[found.start() :]
        found_choices = rule.choices.finditer(below) if rule.choices else ()
        choices = tuple(match[match.re.groups and 1].strip() for match in found_choices)
        asked = groups.get("question") or " ".join(found[0].split())
        question = Question(text=asked, choices=choices, subject=groups.get("subject", ""))
    until = reset_time(groups["until"], at) if "until" in groups else None
    return StateReading(rule.state, "title" if rule.where == "title" else "screen", rule.name, question, until)


def _region(where: str, screen: Screen, composer: Composer) -> str | None:
    name = where.rstrip("0123456789 ")
    count = int(where[len(name) :] or 0) or _ROWS.get(name, 0)
    match name:
        case "title":
            return screen.title
        case "composer":
            return composer.text if composer.seen else None
        case "bottom":
            return "\n".join(screen.bottom(count))
        case "above composer":
            return "\n".join(screen.lines[max(composer.top - count, 0) : composer.top])
        case _:
            return screen.text
