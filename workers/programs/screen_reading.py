"""What a look at a pane says of the program in it, by the rules of its kind's TOML and by the best live source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.workers.programs.config import KindConfig, RuleConfig
from torch_tasks.workers.programs.events import EventLog
from torch_tasks.workers.programs.kind import StateReading
from torch_tasks.workers.programs.reset_time import reset_time
from torch_tasks.workers.programs.screen import Composer, Screen


@dataclass(frozen=True)
class ScreenReading:
    """The pane at one moment, and what it means."""

    screen: Screen
    composer: Composer
    by_screen: StateReading
    """What the screen alone says of the program's state."""
    best: StateReading
    """What the best source says of it."""

    @property
    def above(self) -> str:
        """What stands above the composer."""
        return "\n".join(self.screen.lines[: self.composer.top])


#: How many rows a region without a number has.
_ROWS = {"bottom": 10, "above composer": 6}


class ScreenRules:
    """The rules, the most important first."""

    def __init__(self, config: KindConfig) -> None:
        self._rules = sorted(config.rules, key=lambda rule: -rule.priority)

    def read(self, screen: Screen, composer: Composer, at: datetime | None = None) -> StateReading:
        """What the first rule that fits says; if none does, the state is unknown, and it is not safe to type."""
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
        choices = (
            tuple(match[match.re.groups and 1].strip() for match in rule.choices.finditer(below))
            if rule.choices
            else ()
        )
        asked = groups.get("question") or " ".join(found[0].split())
        question = Question(text=asked, choices=choices, subject=groups.get("subject", ""))
    until = reset_time(groups["until"], at) if "until" in groups else None
    return StateReading(rule.state, "title" if rule.where == "title" else "screen", rule.name, question, until)


def _region(where: str, screen: Screen, composer: Composer) -> str | None:
    words = where.split()
    count = int(words.pop()) if words[-1].isdigit() else 0
    name = " ".join(words)
    count = count or _ROWS.get(name, 0)
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


_EVENTS = 3


def explain(view: ScreenReading, status: StateReading | None, log: EventLog) -> list[tuple[str, str]]:
    """Each source and its word, the decisive one first."""
    reading, drawn, composer = view.best, view.by_screen, view.composer
    stands = f"holds {composer.text!r}" if composer.text else "empty"
    return [
        (reading.source, f"{reading.state} ({reading.rule})"),
        ("live source", f"{status.state} ({status.source}: {status.rule})" if status else "none"),
        ("screen", f"{drawn.state} ({drawn.rule})"),
        ("title", view.screen.title),
        ("composer", stands if composer.seen else "not seen"),
        *(("event", f"{event.at:%H:%M:%S} {event.kind} ({event.origin})") for event in log.since("")[-_EVENTS:]),
    ]
