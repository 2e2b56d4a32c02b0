"""What agents may use of an account with a provider of models, and what they have used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

WINDOWS = {
    "calls_per_minute": 60_000,
    "calls_per_hour": 3_600_000,
    "calls_per_day": 86_400_000,
    "tokens_per_day": 86_400_000,
}
"""The possible limits, each with the milliseconds after which its count starts again; days are those of UTC."""


class Budget(BaseModel):
    """An account's limits; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls_per_minute: int | None = Field(None, gt=0)
    calls_per_hour: int | None = Field(None, gt=0)
    calls_per_day: int | None = Field(None, gt=0)
    tokens_per_day: int | None = Field(None, gt=0)

    def limit(self, name: str) -> int:
        """One limit; 0 if there is none."""
        return int(getattr(self, name) or 0)


class BudgetLine(BaseModel):
    """One limit of an account, and how much of it is used."""

    account: str
    name: str
    limit: int | None
    used: int
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
        found.append(BudgetLine(account=account, name=name, limit=budget.limit(name) or None, used=used, until=until))
    return found
