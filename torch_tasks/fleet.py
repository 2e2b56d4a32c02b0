"""One process's hold on the shared state: the broker's client, the records, the registry."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING

import redis

from torch_tasks.broker.connection import connect
from torch_tasks.broker.reconciler import Reconciler
from torch_tasks.settings import Settings, settings
from torch_tasks.store.agents import AgentRegistry, SoftPins
from torch_tasks.store.holds import Holds
from torch_tasks.store.ledger import Ledger
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.transport import Deliveries, Gate

if TYPE_CHECKING:
    from torch_tasks.store.accounts import Account, Budgets
    from torch_tasks.store.checkins import CheckinRecords
    from torch_tasks.store.messages import Inboxes
    from torch_tasks.store.nodes import NodeRegistry, Spawns


class Fleet:
    """What the fleet shares, through one connection pool."""

    def __init__(self, configuration: Settings) -> None:
        self.settings = configuration

    @cached_property
    def client(self) -> redis.Redis:
        """The broker, as a Redis client."""
        return connect(self.settings.broker())

    @cached_property
    def records(self) -> TaskRecords:
        """The task records."""
        return TaskRecords(self.client, self.settings)

    @cached_property
    def deliveries(self) -> Deliveries:
        """The messages on their way, held, or dead."""
        return Deliveries(self.client)

    @cached_property
    def inboxes(self) -> Inboxes:
        """The messages."""
        from torch_tasks.store.messages import Inboxes  # only who sends, receives or looks at them

        return Inboxes(self.client, self.settings)

    @cached_property
    def checkins(self) -> CheckinRecords:
        """The check-ins."""
        from torch_tasks.store.checkins import CheckinRecords  # only who schedules, delivers or looks at them

        return CheckinRecords(self.client, self.settings, self.inboxes, self.records)

    @cached_property
    def registry(self) -> AgentRegistry:
        """The agents."""
        return AgentRegistry(self.client, self.settings)

    @cached_property
    def nodes(self) -> NodeRegistry:
        """The machines."""
        from torch_tasks.store.nodes import NodeRegistry  # only node workers, and who asks for them

        return NodeRegistry(self.client, self.settings)

    @cached_property
    def spawns(self) -> Spawns:
        """The agents that were spawned."""
        from torch_tasks.store.nodes import Spawns  # the same

        return Spawns(self.client, self.settings)

    @cached_property
    def soft_pins(self) -> SoftPins:
        """The tasks that wait a while for the agent that would be best for them."""
        return SoftPins(self.client, self.settings)

    @cached_property
    def holds(self) -> Holds:
        """What is paused and stopped."""
        return Holds(self.client)

    def account(self, name: str) -> Account:
        """An account with a provider of models."""
        from torch_tasks.store.accounts import Account  # only who hosts a coding agent has one

        return Account(name, connect(self.settings.broker(), decoded=False), self.settings)

    @cached_property
    def budgets(self) -> Budgets:
        """What is used of the accounts."""
        from torch_tasks.store.accounts import Budgets  # only who hosts a coding agent, or looks

        return Budgets(self.client, self.settings)

    @cached_property
    def gate(self) -> Gate:
        """Whether the broker was restarted and is not reconciled yet."""
        return Gate(self.client)

    @cached_property
    def reconciler(self) -> Reconciler:
        """Has whatever this process knows put back, if the broker has forgotten it."""
        return Reconciler(self.client)

    @cached_property
    def ledger(self) -> Ledger | None:
        """What this machine's disk knows of the tasks enqueued here; nothing if the ledger is turned off."""
        if not self.settings.ledger:
            return None
        return Ledger(self.settings.state.ledger, self.settings.broker().place)


@cache
def fleet() -> Fleet:
    """The fleet as this process's settings find it."""
    return Fleet(settings())
