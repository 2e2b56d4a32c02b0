"""What the agent may use of its account with the provider of its model."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime, timedelta
from functools import cached_property

from torch_tasks.app import app
from torch_tasks.errors import BrokerAway
from torch_tasks.fleet import Fleet
from torch_tasks.model.fields import now
from torch_tasks.model.host import UsageLimited
from torch_tasks.model.task import FailureKind, TaskResult
from torch_tasks.store.accounts import Account
from torch_tasks.workers.host.spending import Spending
from torch_tasks.workers.programs.kind import AgentKind

log = logging.getLogger(__name__)

#: A shorter pause would be over before its first look.
_SHORTEST = 1.0


class AccountQuota:
    """One agent's share of its account: while there is none, its worker takes no tasks."""

    def __init__(self, kind: AgentKind, fleet: Fleet) -> None:
        self._kind = kind
        self._fleet = fleet

    @cached_property
    def _account(self) -> Account | None:
        return self._fleet.account(self._kind.account) if self._kind.account else None

    @cached_property
    def _spending(self) -> Spending | None:
        return Spending(self._kind.account, self._fleet) if self._kind.account else None

    def require(self) -> None:
        """Count one call if the account may be used, else :class:`UsageLimited`, and a pause."""
        if self._account and (seconds := self._account.closed_for(self._kind.agent_id)):
            app.leases.intake.last(seconds)
            until = now() + timedelta(seconds=seconds)
            raise UsageLimited(f"the account {self._account.name} rests until {until:%Y-%m-%d %H:%M:%S} UTC")
        if self._spending and (answer := self._spending.ask()).closed_seconds:
            seconds = max(answer.closed_seconds, _SHORTEST)
            app.leases.intake.last(seconds)
            until = now() + timedelta(seconds=seconds)
            raise UsageLimited(f"{answer.why}; the next is free in {seconds:.0f} s", until)

    def admits(self) -> bool:
        """Count a message's call if the account may be used; without a broker it may, and the call is counted later."""
        try:
            self.require()
        except UsageLimited as limited:
            log.info("%s: messages wait: %s", self._kind.agent_id, limited)
            return False
        except BrokerAway:
            self.count_call()
        return True

    def count_call(self) -> None:
        """Another call is made for what was begun before."""
        if self._spending:
            self._spending.count(calls=1)

    def used_up(self, limited: UsageLimited) -> None:
        """The agent hit a limit: all agents that share the account rest until it ends."""
        if self._account is None or app.leases.intake.left:
            return
        seconds = (limited.until - datetime.now(UTC)).total_seconds() if limited.until else None
        app.leases.intake.last(self._account.limited(seconds))

    def note(self, result: TaskResult) -> None:
        """Count what a task used, and note on the account whether its provider served it."""
        if self._account is None:
            return
        if self._spending and result.usage:
            self._spending.count(tokens=result.usage.input_tokens + result.usage.output_tokens)
        with contextlib.suppress(BrokerAway):
            if result.succeeded:
                self._account.served()
            elif result.error and result.error.kind is FailureKind.OVERLOADED:
                self._account.overloaded()
