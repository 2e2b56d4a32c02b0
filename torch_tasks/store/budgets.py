"""The accounts' budgets: every statement that counts what is used of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.model.budget import WINDOWS, Budget, Line, lines
from torch_tasks.settings import Settings
from torch_tasks.store import budget_scripts as scripts


class Answer(NamedTuple):
    """What came of asking for a share of a budget."""

    closed_seconds: float
    """For so long nothing is to be begun; 0 if there was something left, and it is counted."""
    why: str
    """In words."""
    spent: dict[str, str]
    """What this machine has used by now, for it to keep."""


class Budgets:
    """What this machine uses of the accounts."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._node = settings.node
        self._budgets = settings.budgets
        self._spend = client.register_script(scripts.SPEND)

    def of(self, account: str) -> Budget:
        """An account's budget; without limits if none is set."""
        return self._budgets.get(account, Budget())

    def spend(
        self, account: str, noted: Mapping[str, str], *, calls: int = 0, tokens: int = 0, if_left: bool = False
    ) -> Answer:
        """Count so much for this machine, which has ``noted`` what it used before.

        ``if_left``: only if no limit is reached, in one step, so that no two agents get the last call.
        """
        budget = self.of(account)
        args: list[str | int] = [account, self._node, int(if_left), calls, tokens]
        for name, length in WINDOWS.items():
            args += [name, length, budget.limit(name), noted.get(name, "")]
        closed_ms, why, limit, *spent = self._spend(keys=[keys.account(account, "spent"), keys.ACCOUNTS], args=args)
        said = f"the budget of account {account} is used up: {limit:,} {str(why).replace('_', ' ')}"
        return Answer(int(closed_ms) / 1000, said, dict(zip(WINDOWS, map(str, spent), strict=True)))

    def lines(self, accounts: list[str]) -> list[Line]:
        """How these accounts stand."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            for account in accounts:
                pipe.hgetall(keys.account(account, "spent"))
            (seconds, micros), *spent = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        return [
            line
            for account, fields in zip(accounts, spent, strict=True)
            for line in lines(account, self.of(account), fields, now_ms)
        ]

    def accounts(self) -> list[str]:
        """Those that have a budget here, or of which anything was ever used."""
        return sorted({*map(str, self._client.smembers(keys.ACCOUNTS)), *self._budgets})
