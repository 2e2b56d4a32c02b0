"""``torch-tasks report``: how the fleet did, for a terminal, as Markdown, or as a page with charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from math import floor, log10
from typing import NamedTuple

import click

from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import as_json, as_table
from torch_tasks.cli.tables import Column
from torch_tasks.link import perform
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.report import DayLine, FleetReport, Presence, Spent, Unit
from torch_tasks.operations import fleet as operations


@click.command()
@click.option("--since", type=Duration(), default=7 * 86_400, help="How far back, in whole days (default: 7d).")
@click.option("--markdown", is_flag=True, help="Print it as Markdown, for a chat or a file.")
@click.option("--html", is_flag=True, help="Print a page with charts, which needs nothing else.")
@JSON
def report(since: float, markdown: bool, html: bool, json_wanted: bool) -> None:
    """Show how the fleet did: uptime, tasks, delivery, recoveries, use and cost, and what will be full first.

    Days are those of UTC, and today counts as one. Each number is compared with that of as many days before.
    """
    found = perform(operations.report, operations.Since.build(seconds=since))
    if json_wanted:
        as_json(found)
    elif html:
        click.echo(page(found))
    elif markdown:
        click.echo("\n".join(as_markdown(found)))
    else:
        print_report(found)


_ROUGH_SHARE = 0.1
_GOAL_WORDS = {Unit.SHARE: "at least ", Unit.SECONDS: "at most "}
_MET = {True: "met", False: "not met", None: "-"}


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
            _MET[one.is_met],
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


def _title(found: FleetReport) -> str:
    return f"The fleet from {found.since} to {found.until}"


_NOTHING = "Nothing was recorded in this time: node workers record what they see from their start on."


def print_report(found: FleetReport) -> None:
    """Print it for a terminal, in tables that fit there."""
    click.echo(f"{_title(found)}: {headline(found)}")
    if not found.nodes:
        click.echo(_NOTHING)
        return
    for section in sections(found):
        click.echo(f"\n{section.title.upper()}")
        as_table([Column(heading) for heading in section.columns], section.rows)


def as_markdown(found: FleetReport) -> Iterator[str]:
    yield f"## {_title(found)}\n\n{headline(found)}"
    if not found.nodes:
        yield f"\n{_NOTHING}"
        return
    for section in sections(found):
        yield f"\n### {section.title}\n"
        yield f"| {' | '.join(section.columns)} |\n|{'---|' * len(section.columns)}"
        for row in section.rows:
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #1c2733 }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.5rem }
figure { margin: 1.2rem 0 0 } figcaption { font-weight: 600 } svg { width: 100%; height: auto }
svg text { font-size: 11px; fill: #5b6875 } svg .nothing { fill: #aab4bd; font-size: 9px }
.grid { stroke: #dfe5ea } .good { fill: #2b7a62 } .bad { fill: #c4512d } .unmet { color: #b3441f; font-weight: 600 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #e6ebef }
th:first-child, td:first-child { text-align: left } th { color: #5b6875; font-weight: 600 }
"""
_WIDTH, _HEIGHT, _LEFT, _FOOT = 480, 190, 52, 22


def page(found: FleetReport) -> str:
    """The report as one HTML file: no script, nothing from elsewhere."""
    charts = "".join(
        _chart(title, found.days, good, bad, shown, most)
        for title, good, bad, shown, most in (
            ("Tasks that ended (failed ones in red)", lambda day: day.succeeded, lambda day: day.failed, _whole, 0.0),
            ("Cost, USD", lambda day: day.cost_usd, _none, _short, 0.0),
            ("Tokens", lambda day: day.tokens, _none, _whole, 0.0),
            ("Uptime of agents", lambda day: day.up or 0.0, _none, lambda value: f"{value:.0%}", 1.0),
            ("Agents busy", lambda day: day.busy or 0.0, _none, lambda value: f"{value:.0%}", 1.0),
            ("Hours that agents waited for a person", lambda day: day.waiting_seconds / 3600, _none, _short, 0.0),
        )
    )
    body = f'<div class="charts">{charts}</div>{"".join(map(_html_table, sections(found)))}'
    title = escape(_title(found))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1><p>{escape(headline(found))}</p>{body if found.nodes else f'<p>{_NOTHING}</p>'}"
        "</body></html>"
    )


def _none(day: DayLine) -> float:
    return 0.0


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def _round_top(value: float) -> float:
    """The next number above that is easily read: 1, 2, 4, 6 or 10 times a power of ten."""
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 4, 6, 10) if value <= step * power * (1 + 1e-9))


def _chart(
    title: str,
    days: Sequence[DayLine],
    good: Callable[[DayLine], float],
    bad: Callable[[DayLine], float],
    shown: Callable[[float], str],
    most: float,
) -> str:
    """A bar for each day, what is bad on top of what is good; ``most`` is the end of the scale, 0: as the days need."""
    highest = max((good(day) + bad(day) for day in days), default=0.0)
    top = most or (_round_top(highest) if highest else 1.0)
    step, height = (_WIDTH - _LEFT) / len(days), _HEIGHT - _FOOT - 10
    marks = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(shown(top * share))}</text>'
        for share in (0.0, 0.5, 1.0)
        for y in [10 + height * (1 - share)]
    )
    bars = ""
    for place, day in enumerate(days):
        x, y = _LEFT + place * step + step * 0.15, 10.0 + height
        words = escape(f"{day.day}: {shown(good(day))}" + (f", {shown(bad(day))} failed" if bad(day) else ""))
        if day.up is None:
            bars += (
                f'<text x="{x + step * 0.35:.1f}" y="{y - 6:.1f}" class="nothing" text-anchor="middle">no record</text>'
            )
        for style, value in (("good", good(day)), ("bad", bad(day))):
            tall = height * value / top
            y -= tall
            bars += (
                f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{step * 0.7:.1f}" height="{tall:.1f}">'
                f"<title>{words}</title></rect>"
            )
    every = max(1, len(days) // 7)
    labels = "".join(
        f'<text x="{_LEFT + (place + 0.5) * step:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{day.day:%d %b}</text>'
        for place, day in enumerate(days)
        if place % every == 0
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{marks}{bars}{labels}</svg></figure>"
    )


def _html_table(section: ReportTable) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in section.columns)
    rows = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in section.rows)
    return f"<h2>{escape(section.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _html_cell(cell: str) -> str:
    return f"<td{' class=unmet' if cell == _MET[False] else ''}>{escape(cell)}</td>"


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


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
