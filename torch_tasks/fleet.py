"""One process's hold on the shared state: the broker's client, the records, the registry."""

from __future__ import annotations

from functools import cache, cached_property

import redis

from torch_tasks.broker import connect
from torch_tasks.ledger import Ledger
from torch_tasks.orchestration.agent_registry import AgentRegistry
from torch_tasks.orchestration.node_registry import NodeRegistry
from torch_tasks.records import TaskRecords
from torch_tasks.settings import Settings, settings


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
    def registry(self) -> AgentRegistry:
        """The agents."""
        return AgentRegistry(self.client, offline_seconds=self.settings.offline_seconds)

    @cached_property
    def nodes(self) -> NodeRegistry:
        """The machines."""
        return NodeRegistry(self.client, self.settings)

    @cached_property
    def ledger(self) -> Ledger | None:
        """What this machine's disk knows of the tasks enqueued here; nothing if the ledger is turned off."""
        if not self.settings.ledger:
            return None
        return Ledger(self.settings.ledger_file, self.settings.broker().place)


@cache
def fleet() -> Fleet:
    """The fleet as this process's settings find it."""
    return Fleet(settings())
