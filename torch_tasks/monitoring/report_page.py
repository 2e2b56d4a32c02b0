"""The report as HTML: its charts, its tables, and a whole page of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import floor, log10

from torch_tasks.model.report import DayLine, FleetReport
from torch_tasks.monitoring.report_words import MET, NOTHING, ReportTable, headline, sections, title_of

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
    title = escape(title_of(found))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{contents(found)}</body></html>"
    )


def contents(found: FleetReport) -> str:
    """What stands on such a page, without a style of its own."""
    if not found.nodes:
        return f"<p>{escape(headline(found))}</p><p>{NOTHING}</p>"
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
    tables = "".join(map(_html_table, sections(found)))
    return f'<p>{escape(headline(found))}</p><div class="charts">{charts}</div>{tables}'


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
    return f"<td{' class=unmet' if cell == MET[False] else ''}>{escape(cell)}</td>"
