"""What waits in the queues that any able agent reads."""

from __future__ import annotations

from collections.abc import Collection

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.models import AgentInfo, Model
from torch_tasks.routing import demanded, serves
from torch_tasks.transport.wire import message_id


class Backlog(Model):
    """What waits in one queue."""

    queue: str
    waiting: int
    oldest_seconds: float


def backlogs(fleet: Fleet) -> list[Backlog]:
    """Every queue in which a task waits for whoever is able."""
    found = fleet.deliveries.backlogs(sorted(demanded(fleet.client)))
    return [
        Backlog(queue=queue, waiting=waiting, oldest_seconds=_oldest(fleet, messages))
        for queue, (waiting, messages) in found.items()
        if keys.is_task_queue(queue)
    ]


def _oldest(fleet: Fleet, messages: list[str]) -> float:
    """For how many seconds the oldest of these tasks has been accepted, by the broker's clock."""
    with fleet.client.pipeline(transaction=False) as pipe:
        pipe.time()
        for message in messages:
            pipe.zscore(keys.TASK_STATUS, message_id(message) or "")
        (seconds, micros), *accepted = pipe.execute()
    now = seconds + micros / 1e6
    return max((now - since / 1e6 for since in accepted if since), default=0.0)


def unserved(found: Collection[Backlog], agents: Collection[AgentInfo]) -> list[str]:
    """The queues that nobody who is there reads."""
    there = [agent for agent in agents if agent.online and not agent.retiring]
    return [one.queue for one in found if not any(serves(one.queue, agent.role, agent.abilities) for agent in there)]
