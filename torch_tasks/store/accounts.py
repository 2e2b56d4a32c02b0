"""Accounts with the providers of models: when one is closed, and what is used of its budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import redis
from pybreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker, CircuitBreakerError, CircuitRedisStorage

from torch_tasks import keys
from torch_tasks.broker.clock import in_ms
from torch_tasks.broker.scripts import Scripts
from torch_tasks.model.budget import NOTHING, WINDOWS, Budget, BudgetLine, Charge, amount_in_words, budget_lines
from torch_tasks.model.fields import now
from torch_tasks.settings import Settings

SCRIPTS = Scripts(__file__)

_PROBE_SECONDS = 60.0
"""How long the other agents wait for the one that tries an account again."""


class Overloaded(Exception):
    """The provider refused for want of capacity, also when the agent's program tried again."""


class Account:
    """One account, shared by many agents.

    It is closed after a usage limit until that ends, and for a while after failures in a row; afterwards one agent
    tries first, and the others follow when it was served.
    """

    def __init__(self, name: str, client: redis.Redis, settings: Settings) -> None:
        self.name = name
        self._client = client
        self._limit, self._probation, self._probe = (keys.account(name, part) for part in ("limit", "trial", "probe"))
        self._pause = settings.account_pause_seconds
        self._breaker = CircuitBreaker(
            fail_max=settings.account_failures,
            reset_timeout=settings.account_pause_seconds,
            state_storage=CircuitRedisStorage(STATE_CLOSED, client, namespace=keys.account(name, "breaker")),
            throw_new_error_on_trip=False,
        )

    def closed_for(self, agent_id: str) -> float:
        """For how many seconds this agent may not use the account; 0 if it may, perhaps as the one that tries."""
        left = int(self._client.pttl(self._limit))
        if left > 0:
            return left / 1000
        if self._breaker.current_state == STATE_OPEN:
            opened = self._breaker._state_storage.opened_at
            if opened and (seconds := self._pause - (datetime.now(UTC) - opened).total_seconds()) > 0:
                return seconds
            self._breaker.half_open()
        if self._breaker.current_state == STATE_CLOSED and not self._client.exists(self._probation):
            return 0.0
        return self._wait_for_probe(agent_id)

    def rests_until(self) -> datetime | None:
        """When the last usage limit ends; None once an agent was served again."""
        left, probation = int(self._client.pttl(self._limit)), self._client.exists(self._probation)
        return now() + timedelta(milliseconds=max(left, 0)) if probation else None

    def limited(self, seconds: float | None) -> float:
        """Close the account for a usage limit that ends in so many seconds, if known; returns for how long."""
        pause = self._pause if seconds is None else max(seconds, 1.0)
        with self._client.pipeline() as pipe:
            pipe.set(self._limit, 1, px=int(pause * 1000))
            pipe.set(self._probation, 1)
            pipe.delete(self._probe)
            pipe.execute()
        return pause

    def overloaded(self) -> None:
        """Count a task that failed for want of capacity."""
        self._client.delete(self._probe)
        with suppress(Overloaded, CircuitBreakerError), self._breaker.calling():
            raise Overloaded

    def served(self) -> None:
        self._client.delete(self._probation, self._probe)
        with suppress(CircuitBreakerError), self._breaker.calling():
            pass

    def _wait_for_probe(self, agent_id: str) -> float:
        if self._client.set(self._probe, agent_id, nx=True, px=int(_PROBE_SECONDS * 1000)):
            return 0.0
        if self._client.get(self._probe) == agent_id.encode():
            return 0.0
        return max(int(self._client.pttl(self._probe)), 1000) / 1000


class BudgetShare(NamedTuple):
    closed_seconds: float
    """For how long no task may begin; 0 if something was left, which is then counted."""
    why: str
    spent: dict[str, str]
    """What this machine has used by now, for it to keep."""


class Budgets:
    """What this machine uses of the accounts' budgets."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._node = settings.node
        self._budgets = settings.budgets

    def of(self, account: str) -> Budget:
        return self._budgets.get(account, Budget())

    def spend(
        self, account: str, noted: Mapping[str, str], used: Charge = NOTHING, *, if_left: bool = False
    ) -> BudgetShare:
        """Count what this machine uses, in one step with the check of the limits if only ``if_left``.

        ``noted`` is what it used before.
        """
        budget = self.of(account)
        rows = [
            (name, length, budget.counted_limit(name), noted.get(name, ""), used.of(name))
            for name, length in WINDOWS.items()
        ]
        closed_ms, why, limit, *spent = SCRIPTS["spend"](
            self._client,
            spent=keys.account(account, "spent"),
            accounts=keys.ACCOUNTS,
            account=account,
            node=self._node,
            if_left=if_left,
            limits=itertools.chain.from_iterable(rows),
        )
        words = f"the budget of account {account} is used up: {amount_in_words(str(why), int(limit))}" if why else ""
        return BudgetShare(int(closed_ms) / 1000, words, dict(zip(WINDOWS, map(str, spent), strict=True)))

    def lines(self, accounts: list[str]) -> list[BudgetLine]:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            for account in accounts:
                pipe.hgetall(keys.account(account, "spent"))
            time, *spent = pipe.execute()
        return [
            line
            for account, fields in zip(accounts, spent, strict=True)
            for line in budget_lines(account, self.of(account), fields, in_ms(time))
        ]

    def accounts(self) -> list[str]:
        """The accounts that have a budget here or were ever used."""
        return sorted({*map(str, self._client.smembers(keys.ACCOUNTS)), *self._budgets})
