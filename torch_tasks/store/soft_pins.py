"""Soft pins: tasks that wait in one agent's own queue, but not for long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.settings import Settings
from torch_tasks.store import agent_scripts as scripts

_REMEMBERED_MS = 3_600_000
"""A pin whose task was never seen, because its client died before it was sent, is forgotten then."""


class SoftPins:
    """Which tasks wait for which agents, and until when.

    A pin is there before its message is, and goes when the agent takes the task, or when whoever tends the fleet has
    brought the message to the queue that every able agent reads.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._ms = int(settings.soft_pin_seconds * 1000)
        self._reserve = client.register_script(scripts.RESERVE)
        self._due = client.register_script(scripts.DUE)

    def reserve(self, agent_id: str, task_id: str) -> bool:
        """Have the agent spoken for, if it is free still."""
        return bool(self._reserve(keys=[keys.SOFT_PINS, keys.AGENT_LOAD], args=[agent_id, task_id, self._ms]))

    def due(self) -> list[tuple[str, str]]:
        """The agents that have not begun in time, and with which tasks."""
        return _pairs(self._due(keys=[keys.SOFT_PINS], args=[_REMEMBERED_MS]))

    def all(self) -> list[tuple[str, str]]:
        """The agents that tasks wait for, and those tasks."""
        return _pairs(self._client.zrange(keys.SOFT_PINS, 0, -1))

    def drop(self, agent_id: str, task_id: str) -> None:
        """The task waits for this agent no longer."""
        self._client.zrem(keys.SOFT_PINS, f"{agent_id} {task_id}")


def _pairs(pins: Iterable[Any]) -> list[tuple[str, str]]:
    return [(agent_id, task_id) for agent_id, _, task_id in (str(pin).partition(" ") for pin in pins)]
