"""The health of the system, from everything that the fleet shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import AwareDatetime, Field

from torch_tasks.broker.memory import memory_of
from torch_tasks.caller import OPERATOR
from torch_tasks.checkins.readiness import readiness
from torch_tasks.communication.messenger import outbox_of
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import Model, now
from torch_tasks.model.routing import Prospects, believed_state
from torch_tasks.model.task import NOT_BEGUN, TaskRecord
from torch_tasks.monitoring.readiness import RESTORING, lacks_of_disk
from torch_tasks.orchestration.followups import standing_still
from torch_tasks.orchestration.scaling import backlogs, unserved

_LATEST = 1000
"""How many of the latest tasks and messages count."""
_FULLEST = 5


class Health(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """A part of it does not work: ``reasons`` says which."""
    DOWN = "down"
    """The broker is away, or no agent is online."""


class RoleHealth(Model):
    online: int = 0
    free: int = 0
    offline: int = 0


class QueueHealth(Model):
    """The tasks of one queue that no agent has begun."""

    depth: int
    oldest_seconds: float


class SystemHealth(Model):
    """The health of the system at one moment; ``model_dump(mode="json")`` is plain JSON."""

    status: Health
    reasons: tuple[str, ...] = ()
    at: AwareDatetime
    broker: str
    broker_ms: float | None = None
    agents: dict[str, RoleHealth] = Field({})
    queues: dict[str, QueueHealth] = Field({})
    tasks: dict[str, int] = Field({})
    """How many tasks are in each state, among the latest."""
    dead_letters: int = 0
    inboxes: dict[str, int] = Field({})
    """How many messages wait for each receiver, of the fullest inboxes."""
    dead_messages: int = 0
    spooled_messages: int = 0
    """On this machine's disk, until the broker takes them."""
    spawn_wanted: tuple[str, ...] = ()
    """The queues in which tasks wait and that no live agent reads."""


def system_health(of: Fleet) -> SystemHealth:
    """The health of the system now; while the broker is away it is ``down``, with the reason."""
    address = of.settings.broker()
    try:
        return _look(of, str(address))
    except BrokerUnreachable as error:
        return SystemHealth(
            status=Health.DOWN,
            reasons=(str(error),),
            at=now(),
            broker=str(address),
            spooled_messages=outbox_of(of).waiting(),
        )


def _look(shared: Fleet, address: str) -> SystemHealth:
    begun = datetime.now(UTC)
    shared.client.ping()
    took = (datetime.now(UTC) - begun).total_seconds() * 1000
    agents, records = shared.registry.agents(), shared.records.latest(_LATEST)
    dead, wanted = len(shared.deliveries.dead_letter_ids()), tuple(unserved(backlogs(shared), agents))
    lost = list(filter(Prospects(agents).unroutable, records))
    inboxes = shared.inboxes.depths([*(info.agent_id for info in agents), OPERATOR])
    dead_messages, spooled = shared.inboxes.count_dead(_LATEST), outbox_of(shared).waiting()
    reasons = (
        *_reasons(agents, lost, dead, gate_open=shared.gate.state().open),
        *filter(None, [memory_of(shared.client).warning]),
        *lacks_of_disk(shared),
        *_reasons_of_messages(dead_messages, spooled),
        *_reasons_of_time(shared),
    )
    deserted = bool(agents) and not any(info.online for info in agents)
    return SystemHealth(
        status=Health.DOWN if deserted else Health.DEGRADED if reasons else Health.HEALTHY,
        reasons=reasons,
        at=now(),
        broker=address,
        broker_ms=round(took, 2),
        agents=_by_role(agents),
        queues=_queues(records),
        tasks=dict(Counter(map(believed_state, records))),
        dead_letters=dead,
        inboxes=dict(list(inboxes.items())[:_FULLEST]),
        dead_messages=dead_messages,
        spooled_messages=spooled,
        spawn_wanted=wanted,
    )


def _reasons(agents: list[AgentInfo], lost: list[TaskRecord], dead: int, *, gate_open: bool) -> Iterable[str]:
    if not gate_open:
        yield RESTORING
    offline = [info.agent_id for info in agents if not info.online and not info.left]
    if agents and not any(info.online for info in agents):
        yield "no agent is online"
    elif offline:
        yield f"no heartbeat from {_first_few(offline)}"
    stuck = [f"{info.agent_id} ({info.state})" for info in agents if info.online and info.state in _STUCK]
    if stuck:
        yield f"{_first_few(stuck)} cannot work"
    if lost:
        yield f"no live agent can do {_first_few([record.spec.id for record in lost])}"
    if dead:
        yield f"{dead} dead letters; 'torch-tasks dead list' shows them"


def _reasons_of_messages(dead: int, spooled: int) -> Iterable[str]:
    if dead:
        yield f"{dead} messages are dead; 'torch-tasks messages' shows them, with --replay one is sent again"
    if spooled:
        yield f"{spooled} messages wait on this machine's disk: the broker was away, or inboxes are full"


def _reasons_of_time(shared: Fleet) -> Iterable[str]:
    """Tasks without progress, and what keeps check-ins from firing."""
    if still := standing_still(shared):
        yield f"no progress at {_first_few([str(one) for one in still])}"
    if shared.checkins.to_come():
        yield from readiness(shared).lacks


_STUCK = ("login", "error", "exited")


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _by_role(agents: Iterable[AgentInfo]) -> dict[str, RoleHealth]:
    roles: dict[str, Counter[str]] = {}
    for info in agents:
        roles.setdefault(info.role, Counter()).update(
            online=int(info.online), free=int(info.free), offline=int(not info.online)
        )
    return {role: RoleHealth(**counted) for role, counted in sorted(roles.items())}


def _queues(records: Iterable[TaskRecord]) -> dict[str, QueueHealth]:
    waiting: dict[str, list[datetime]] = {}
    for record in records:
        if record.state in NOT_BEGUN:
            waiting.setdefault(record.queue, []).append(record.created_at)
    return {
        queue: QueueHealth(depth=len(since), oldest_seconds=round(max(0.0, (now() - min(since)).total_seconds()), 1))
        for queue, since in sorted(waiting.items())
    }
