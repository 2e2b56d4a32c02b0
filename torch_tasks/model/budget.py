"""What the agents that share an account with a provider of models may use of it, and what they have used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

WINDOWS = {
    "calls_per_minute": 60_000,
    "calls_per_hour": 3_600_000,
    "calls_per_day": 86_400_000,
    "tokens_per_day": 86_400_000,
}
"""The limits that there can be, each with the milliseconds after which its count begins anew; days are those of UTC."""


class Budget(BaseModel):
    """An account's limits; what is not set is not limited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls_per_minute: int | None = Field(None, gt=0)
    calls_per_hour: int | None = Field(None, gt=0)
    calls_per_day: int | None = Field(None, gt=0)
    tokens_per_day: int | None = Field(None, gt=0)

    def limit(self, name: str) -> int:
        """One limit; 0 if there is none."""
        return int(getattr(self, name) or 0)


class Spent(NamedTuple):
    """What one contributor has used within one window."""

    window: int
    """Which one: so many of its length have gone by since 1970."""
    amount: int


class BudgetLine(BaseModel):
    """One line of an account's budget, as it stands."""

    account: str
    name: str
    limit: int | None
    used: int
    until: datetime
    """When the count begins anew."""

    @property
    def exhausted(self) -> bool:
        """Nothing more is begun before then."""
        return self.limit is not None and self.used >= self.limit


def budget_lines(account: str, budget: Budget, spent: Mapping[str, str], now_ms: int) -> list[BudgetLine]:
    """How an account stands at this moment, given all that was ever noted of it: see ``accounts.lua``."""
    found = []
    for name, length in WINDOWS.items():
        window, used = now_ms // length, 0
        for field, text in spent.items():
            noted = parse(text)
            if field.split(" ", 1)[0] == name and noted.window == window:
                used += noted.amount
        until = datetime.fromtimestamp((window + 1) * length / 1000, UTC)
        found.append(BudgetLine(account=account, name=name, limit=budget.limit(name) or None, used=used, until=until))
    return found


def parse(text: str) -> Spent:
    """A count as it is kept: ``window:amount``."""
    window, amount = text.split(":")
    return Spent(int(window), int(amount))
