"""A measured number, its goal, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table

Direction = Literal["≥", "≤"]


@dataclass(frozen=True)
class Measure:
    """One line of a benchmark's table. ``note`` explains the value, or says why there is none."""

    name: str
    value: float | None
    unit: str
    goal: float | None = None
    direction: Direction = "≤"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; nothing without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        return self.value >= self.goal if self.direction == "≥" else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        """The line for programs."""
        return {**asdict(self), "met": self.met}


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that ``percent`` of the values do not exceed; 50 is the median."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(title: str, measures: Sequence[Measure]) -> Table:
    """A benchmark's result for people."""
    shown = Table(title=title, title_justify="left", show_edge=False)
    shown.add_column("measure")
    shown.add_column("value", justify="right")
    shown.add_column("unit")
    shown.add_column("goal", justify="right")
    shown.add_column("met?")
    if any(measure.note for measure in measures):
        shown.add_column("note")
    for measure in measures:
        shown.add_row(
            measure.name,
            "" if measure.value is None else _digits(measure.value),
            measure.unit,
            "" if measure.goal is None else f"{measure.direction} {measure.goal:g}",
            {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[measure.met],
            measure.note,
        )
    return shown


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
