"""What the agent may use of its account with the provider of its model."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from functools import cached_property

import redis

from torch_tasks.errors import BrokerUnreachable
from torch_tasks.fleet import Fleet
from torch_tasks.hosting import Limited
from torch_tasks.models import FailureKind, TaskResult
from torch_tasks.orchestration.accounts import Account
from torch_tasks.transport import pause
from workers.agents.kind import AgentKind


class Quota:
    """One agent's share of its account: while there is none, its worker takes no tasks."""

    def __init__(self, kind: AgentKind, fleet: Fleet) -> None:
        self._kind = kind
        self._fleet = fleet

    @cached_property
    def _account(self) -> Account | None:
        return self._fleet.account(self._kind.account) if self._kind.account else None

    def require(self) -> None:
        """Nothing if the account may be used, else :class:`Limited`, and a pause."""
        if self._account and (seconds := self._account.closed_for(self._kind.agent_id)):
            pause.last(seconds)
            raise Limited(f"the account {self._account.name} is closed for {seconds:.0f} s more")

    def used_up(self, limited: Limited) -> None:
        """The agent hit a limit: all who share the account keep away from it until it ends."""
        if self._account is None or pause.left:
            return
        seconds = (limited.until - datetime.now(UTC)).total_seconds() if limited.until else None
        pause.last(self._account.limited(seconds))

    def note(self, result: TaskResult) -> None:
        """What a task's end says of the account."""
        if self._account is None:
            return
        with contextlib.suppress(redis.RedisError, BrokerUnreachable):
            if result.succeeded:
                self._account.served()
            elif result.error and result.error.kind is FailureKind.OVERLOADED:
                self._account.overloaded()
