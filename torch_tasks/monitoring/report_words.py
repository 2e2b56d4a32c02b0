"""The report in words: what its tables are, for a terminal, a chat or a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch_tasks.model.durations import describe_duration
from torch_tasks.model.report import FleetReport, Presence, Spent, Unit

_ROUGH_SHARE = 0.1
_GOAL_WORDS = {Unit.SHARE: "at least ", Unit.SECONDS: "at most "}
MET = {True: "met", False: "not met", None: "-"}


class ReportTable(NamedTuple):
    """A table of the report, in words."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def sections(found: FleetReport) -> list[ReportTable]:
    """All that has a row."""
    presence = ("up", "busy", "declared for", "waited for a person")
    spent = ("tokens", "USD")
    rooms = [
        (
            room.name,
            f"{room.share:.0%}" if room.share >= _ROUGH_SHARE or not room.used else f"{room.share:.2%}",
            _signed(room.growth_a_day and room.growth_a_day / room.limit),
            _known(room.days_left, lambda days: f"{days:,.0f} days"),
            _known(room.agents_left, lambda agents: f"{agents:,}"),
        )
        for room in found.rooms
    ]
    spreads = [(one.name, f"{one.count:,}", *map(_seconds, (one.p50, one.p95, one.p99))) for one in found.spreads]
    recoveries = [
        (one.fault, str(one.count), _seconds(one.median_seconds), _seconds(one.longest_seconds))
        for one in found.recoveries
    ]
    trends = [(one.name, _in_unit(one.unit, one.now), _in_unit(one.unit, one.before)) for one in found.trends]
    goals = [
        (
            one.name,
            _in_unit(one.unit, one.value),
            _GOAL_WORDS[one.unit] + _in_unit(one.unit, one.goal),
            MET[one.is_met],
        )
        for one in found.goals
    ]
    all_sections = [
        ReportTable("Against the goals", ("", "is", "should be", ""), goals),
        ReportTable("Compared with the time before", ("", "now", "before"), trends),
        ReportTable("What is full first", ("", "used", "growth a day", "full in", "room for more agents"), rooms),
        ReportTable(
            "Nodes",
            ("node", "up", "declared for"),
            [(name, up, declared) for name, up, _, declared, _ in map(_presence, found.nodes)],
        ),
        ReportTable("Roles", ("role", *presence), list(map(_presence, found.roles))),
        ReportTable("Agents", ("agent", *presence), list(map(_presence, found.agents))),
        ReportTable("How long it took", ("", "times", "p50", "p95", "p99"), [row for row in spreads if row[1] != "0"]),
        ReportTable("Recoveries", ("of", "times", "median", "longest"), recoveries),
        ReportTable("Use by account", ("account", *spent), list(map(_spent, found.accounts))),
        ReportTable("Use by role", ("role", *spent), list(map(_spent, found.spending_roles))),
        ReportTable("Use by agent", ("agent", *spent), list(map(_spent, found.spending_agents))),
        ReportTable(
            "Models without a price: not in the cost until prices.toml has one",
            ("model", "tokens"),
            [(one.name, f"{one.tokens:,}") for one in found.unpriced],
        ),
    ]
    return [section for section in all_sections if section.rows]


def headline(found: FleetReport) -> str:
    ended = f"{found.succeeded:,} tasks succeeded, {found.failed:,} failed, {found.cancelled:,} were cancelled"
    share = f" ({found.completion:.1%} completed)" if found.completion is not None else ""
    unpriced = sum(one.tokens for one in found.unpriced)
    beside = f" and {unpriced:,} tokens without a price" if unpriced else ""
    return f"{ended}{share} · {found.tokens:,} tokens · ${found.cost_usd:,.2f}{beside}"


def title_of(found: FleetReport) -> str:
    return f"The fleet from {found.since} to {found.until}"


NOTHING = "Nothing was recorded in this time: node workers record what they see from their start on."


def as_markdown(found: FleetReport) -> Iterator[str]:
    yield f"## {title_of(found)}\n\n{headline(found)}"
    if not found.nodes:
        yield f"\n{NOTHING}"
        return
    for section in sections(found):
        yield f"\n### {section.title}\n"
        yield f"| {' | '.join(section.columns)} |\n|{'---|' * len(section.columns)}"
        for row in section.rows:
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


_FORMS = {Unit.COUNT: "{:,.0f}", Unit.SHARE: "{:.2%}", Unit.USD: "${:,.2f}"}


def _known(value: float | None, shown: Callable[[float], str]) -> str:
    return "-" if value is None else shown(value)


def _seconds(value: float | None) -> str:
    return _known(value, lambda seconds: f"{seconds * 1000:.0f} ms" if 0 < seconds < 1 else describe_duration(seconds))


def _signed(share: float | None) -> str:
    return _known(share, lambda value: f"{value:+.2%}")


def _in_unit(unit: Unit, value: float | None) -> str:
    return _seconds(value) if unit is Unit.SECONDS else _known(value, _FORMS[unit].format)


def _presence(one: Presence) -> tuple[str, str, str, str, str]:
    up, busy = (_known(share, lambda value: f"{value:.2%}") for share in (one.up, one.busy))
    declared, waited = map(describe_duration, (one.declared_seconds, one.waiting_seconds))
    return one.name, up, busy, declared, waited


def _spent(one: Spent) -> tuple[str, ...]:
    return one.name, f"{one.tokens:,}", f"{one.cost_usd:,.2f}"
