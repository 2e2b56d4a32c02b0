"""What agents may use of an account with a provider of models, and what they have used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

WINDOWS = {
    "calls_per_minute": 60_000,
    "calls_per_hour": 3_600_000,
    "calls_per_day": 86_400_000,
    "tokens_per_day": 86_400_000,
    "usd_per_day": 86_400_000,
}
"""The possible limits, each with the milliseconds after which its count starts again; days are those of UTC."""
_COUNTED = {"usd": 1_000_000}
"""In how many parts of it a unit is counted, as counts are whole numbers."""


class Charge(NamedTuple):
    """What is counted against limits."""

    calls: int = 0
    tokens: int = 0
    micro_usd: int = 0

    def of(self, name: str) -> int:
        """How much of it counts against this limit."""
        return {"calls": self.calls, "tokens": self.tokens, "usd": self.micro_usd}[_unit(name)]

    def plus(self, other: Charge) -> Charge:
        return Charge(*(one + more for one, more in zip(self, other, strict=True)))


NOTHING = Charge()


def micro_usd(usd: float) -> int:
    """So many millionths of a dollar, none of them lost."""
    return math.ceil(usd * _COUNTED["usd"])


def _unit(name: str) -> str:
    return name.split("_", 1)[0]


def amount_in_words(name: str, counted: int) -> str:
    """A limit, or what is used of it: ``3 calls per day``, ``2.50 USD per day``."""
    unit, _, per = name.partition("_")
    parts = _COUNTED.get(unit, 1)
    amount = f"{counted:,}" if parts == 1 else f"{counted / parts:,.2f}"
    return f"{amount} {unit.upper() if parts > 1 else unit} {per.replace('_', ' ')}"


class Budget(BaseModel):
    """An account's limits; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls_per_minute: int | None = Field(None, gt=0)
    calls_per_hour: int | None = Field(None, gt=0)
    calls_per_day: int | None = Field(None, gt=0)
    tokens_per_day: int | None = Field(None, gt=0)
    usd_per_day: float | None = Field(None, gt=0, allow_inf_nan=False)

    def counted_limit(self, name: str) -> int:
        """One limit as it is counted; 0 if there is none."""
        return round((getattr(self, name) or 0) * _COUNTED.get(_unit(name), 1))


class BudgetLine(BaseModel):
    """One limit of an account, and how much of it is used."""

    account: str
    name: str
    limit: int | float | None
    used: int | float
    until: datetime

    @property
    def exhausted(self) -> bool:
        """Whether agents begin nothing more before then."""
        return self.limit is not None and self.used >= self.limit


def budget_lines(account: str, budget: Budget, spent: Mapping[str, str], now_ms: int) -> list[BudgetLine]:
    """How an account stands now, from all counts ``window:amount`` on the broker: see ``accounts.lua``."""
    found = []
    for name, length in WINDOWS.items():
        window, used = now_ms // length, 0  # windows are numbered since 1970
        for field, count in spent.items():
            counted_window, amount = map(int, count.split(":"))
            if field.split(" ", 1)[0] == name and counted_window == window:
                used += amount
        until = datetime.fromtimestamp((window + 1) * length / 1000, UTC)
        parts = _COUNTED.get(_unit(name))
        shown = used / parts if parts else used
        found.append(BudgetLine(account=account, name=name, limit=getattr(budget, name), used=shown, until=until))
    return found
