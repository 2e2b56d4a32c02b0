"""Options and arguments that many commands share."""

from __future__ import annotations

import math
import sys
from typing import Any

import click

from torch_tasks.model.durations import parse_duration

JSON = click.option("--json", "json_wanted", is_flag=True, help="For programs.")
SENDER = click.option("--from", "sender", metavar="WHO", help="Who says it (default: this pane's agent, or operator).")


def text_of(words: tuple[str, ...]) -> str:
    """The words of an argument as one text; a lone `-` reads it from standard input."""
    return sys.stdin.read() if words == ("-",) else " ".join(words)


class Duration(click.ParamType[float]):
    """Seconds, as ``90``, ``30m``, ``2h`` or ``1h30m``; 0 only where that says something."""

    name = "duration"

    def __init__(self, *, or_zero: bool = False) -> None:
        self._or_zero = or_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = parse_duration(str(value), bare=1)
        if seconds is None:
            seconds = _number(str(value))
        if seconds is None or seconds < 0 or not (seconds or self._or_zero):
            self.fail(f"{value!r} is no time; say 90, 90s, 30m, 2h or 1d", param, ctx)
        return seconds


def _number(text: str) -> float | None:
    """Also ``1e3`` or ``inf``."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number
