"""How long, as options of commands say it."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """Seconds, as ``90``, ``30m`` or ``2h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value).strip())
        if not found or not float(found[1]):
            self.fail(f"{value!r} is no time; say 90, 90s, 30m, 2h or 1d", param, ctx)
        return float(found[1]) * _UNITS[found[2]]
