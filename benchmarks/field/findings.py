"""What a run of the field found, and how that becomes JSON and Markdown; reading it needs nothing but Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

TORCH, CELERY, REDBEAT = "Torch", "plain Celery", "RedBeat"
OLD_SCRIPT, CAO, AGENT_DECK = "the old script", "CAO", "agent-deck"
NOT_INSTALLED = "not installed"
WRONG, MISHAPS, KILLED, RECOVERY = "wrong verdicts", "mishaps", "lost and doubled", "recovery"
CHECKINS, IDLE, RATES = "check-ins", "idle", "rates"


@dataclass(frozen=True)
class FieldFinding:
    """One number of one system. ``note`` says what it is made of, or why there is none."""

    table: str
    measure: str
    system: str
    value: float | None
    unit: str
    note: str = ""

    @classmethod
    def share(cls, table: str, measure: str, system: str, count: int, of: int, per: int) -> Self:
        """How often at so many, and as often as it would be at ``per``."""
        return cls(table, measure, system, per * count / of, f"per {per:,}", f"{count:,} at {of:,}")

    @property
    def cell(self) -> str:
        """What a table shows of it."""
        if self.value is None:
            return self.note
        return shown(self.value) + (f" ({self.note})" if self.note else "")


@dataclass
class FieldPart:
    """One part of a run: when it ran, for how long, how busy the machine was, what it found."""

    name: str
    at: str
    seconds: float
    load_before: float
    """The mean of the minute before, with what other work there is; and the same at the part's end."""
    load_after: float
    findings: list[FieldFinding] = field(default_factory=list)
    failure: str = ""
    """Why the part ended early, if it did."""


@dataclass
class FieldRun:
    """A whole run."""

    at: str
    quick: bool
    machine: dict[str, str]
    versions: dict[str, str]
    parts: list[FieldPart]
    note: str = ""
    """What a reader has to know of this run."""

    def as_json(self) -> dict[str, Any]:
        """The run for programs."""
        return asdict(self)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        """The run that this JSON tells of."""
        parts = [
            FieldPart(**{**part, "findings": [FieldFinding(**one) for one in part["findings"]]})
            for part in found["parts"]
        ]
        return cls(**{**found, "parts": parts})

    def findings(self, table: str) -> list[FieldFinding]:
        """What belongs into this table, whichever part found it."""
        return [one for part in self.parts for one in part.findings if one.table == table]


def shown(value: float) -> str:
    """A number with as many digits as it is worth."""
    return f"{value:,.0f}" if value == 0 or abs(value) >= 100 else f"{value:.3g}"


def grid(findings: Iterable[FieldFinding]) -> str:
    """A Markdown table: a row for each measure, a column for each system, Torch's first."""
    found = list(findings)
    systems = sorted(dict.fromkeys(one.system for one in found), key=lambda system: system != TORCH)
    rows = dict.fromkeys((one.measure, one.unit) for one in found)
    cells = {(one.measure, one.unit, one.system): one.cell for one in found}
    body = (
        [f"{measure}, {unit}" if unit else measure, *(cells.get((measure, unit, system), "") for system in systems)]
        for measure, unit in rows
    )
    return _markdown(["", *systems], body)


def loads(parts: Iterable[FieldPart]) -> str:
    """A Markdown table of how busy the machine was."""
    body = (
        [part.name, f"{part.seconds:.0f}", shown(part.load_before), shown(part.load_after), part.failure or "no"]
        for part in parts
    )
    return _markdown(["part", "seconds", "load at its beginning", "load at its end", "ended early"], body)


def facts(*groups: dict[str, str]) -> str:
    """A Markdown table of names and values."""
    return _markdown(["", ""], ([name, value] for group in groups for name, value in group.items()), aligned="---")


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]], aligned: str = "---:") -> str:
    rule = ["---", *[aligned] * (len(head) - 1)]
    lines = [head, rule, *body]
    return "".join(f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in line)}|\n" for line in lines)
