"""Options and arguments that many commands share."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from typing import Any

import click

from torch_tasks.model.durations import parse_duration

JSON = click.option("--json", "json_wanted", is_flag=True, help="Print JSON, for programs.")
SENDER = click.option("--from", "sender", metavar="WHO", help="The sender (default: this pane's agent, or operator).")


def text_of(words: tuple[str, ...]) -> str:
    """The words of an argument as one text; a lone `-` reads it from standard input."""
    return sys.stdin.read() if words == ("-",) else " ".join(words)


class Duration(click.ParamType[float]):
    """Seconds, written as ``90``, ``30m``, ``2h``, ``1h30m``, ``1e3`` or ``inf``."""

    name = "duration"

    def __init__(self, *, or_zero: bool = False) -> None:
        self._or_zero = or_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = parse_duration(str(value), bare=1)
        if seconds is None:
            with suppress(ValueError):
                seconds = float(value)
        if seconds is None or math.isnan(seconds) or seconds < 0 or not (seconds or self._or_zero):
            self.fail(f"{value!r} is not a length of time; write it as 90, 90s, 30m, 2h or 1d", param, ctx)
        return seconds
