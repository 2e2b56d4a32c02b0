"""The Celery tasks of node workers: spawn, start, retire and release an agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch_tasks import keys
from torch_tasks.app import app
from torch_tasks.errors import NotAllowed, SpawnFailed, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState, RetireOrder
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.fields import AgentId
from torch_tasks.model.host import NodeHost
from torch_tasks.model.spawn import Spawned, SpawnOutcome, SpawnRequest, SpawnState
from torch_tasks.security.decision import require, require_no_more_than_own
from torch_tasks.security.rights import Right, Subject
from torch_tasks.tasks.execution import HeldMessage
from torch_tasks.tasks.system_task import SystemTask

#: How long the worker waits for an agent that starts before it does other system tasks, and for how long it does those.
_LOOK_SECONDS, _ASIDE_SECONDS = 2.0, 0.2
_PAUSE = 0.05


@app.task(bind=True, base=SystemTask, name="torch.spawn", max_retries=None)
def spawn(self: Any, role: str, **wanted: Any) -> dict[str, Any]:
    """Start an agent where there is room; takes the fields of :class:`~torch_tasks.model.spawn.SpawnRequest`.

    Any node worker may do this, more than once: the same task is one agent.
    """
    try:
        request = SpawnRequest.build(role=role, **{**wanted, "id": self.request.id})
        require_spawn(request)
        spawned, is_new = fleet().spawns.reserve(request)
    except TorchError as error:
        return SpawnOutcome(error=type(error).__name__, reason=str(error)).model_dump(mode="json")
    if is_new:
        order_start(spawned)
    until = time.monotonic() + _LOOK_SECONDS
    while spawned.state is SpawnState.RESERVED:
        if time.monotonic() > until:
            # The message is delivered again, to another node worker should this one die.
            HeldMessage(self.request).put_aside(_ASIDE_SECONDS)
        time.sleep(_PAUSE)
        spawned = settle_spawn(spawned)
    return _outcome_of(spawned).model_dump(mode="json")


def _outcome_of(spawned: Spawned) -> SpawnOutcome:
    ready = spawned.state is SpawnState.READY
    error = "" if ready else SpawnFailed.__name__
    return SpawnOutcome(agent_id=spawned.agent_id, node=spawned.node, ready=ready, error=error, reason=spawned.reason)


def settle_spawn(spawned: Spawned) -> Spawned:
    """Note whether an agent that is being started is ready or lost, and return it as it is then."""
    of = fleet()
    for info in of.registry.get_agents([spawned.agent_id]):
        if info.online and info.node == spawned.node and info.state is not AgentState.STARTING:
            of.spawns.settle(spawned, SpawnState.READY)
    if spawned.state is SpawnState.RESERVED and (reason := _given_up(spawned)):
        of.spawns.settle(spawned, SpawnState.LOST, reason)
    known = [one for one in of.spawns.get_many([spawned.agent_id]) if one.request.id == spawned.request.id]
    return known[0] if known else spawned.model_copy(update={"state": SpawnState.FAILED, "reason": "it was retired"})


def _given_up(spawned: Spawned) -> str:
    """Why the worker stops waiting for this agent; empty while it waits."""
    of = fleet()
    seconds, micros = of.client.time()
    waited = seconds + micros / 1e6 - spawned.at / 1000
    node = next((node for node in of.nodes.nodes() if node.name == spawned.node), None)
    if node is None or not node.online:
        return f"its node {spawned.node} is gone, before {spawned.agent_id} was ready"
    if waited > of.settings.spawn_seconds:
        after = f"{describe_duration(waited)} (TORCH_SPAWN_SECONDS)"
        return f"{spawned.agent_id} was not ready on {spawned.node} after {after}"
    return ""


def order_start(spawned: Spawned) -> None:
    """Have the node that has the agent's place start it."""
    start_agent.apply_async((spawned.model_dump(mode="json"),), queue=keys.node_queue(spawned.node))


def require_spawn(request: SpawnRequest) -> None:
    """Raise :class:`NotAllowed` if who asks may not have such an agent started."""
    require("agent.spawn", Right.SPAWN, Subject(party=request.parent))
    require_no_more_than_own(request.role)


def _node() -> NodeHost:
    if app.node is None:  # Torch does not put it into an agent worker's queue
        HeldMessage(app.current_task.request).refuse("only a node worker can do this task")
    return app.node


@app.task(base=SystemTask, name="torch.start_agent")
def start_agent(spawned: Spawned) -> None:
    """Sent to the agent's node: keep the agent alive from now on; if who asked may not, its place is free again."""
    try:
        require_spawn(spawned.request)
    except NotAllowed as error:
        fleet().spawns.settle(spawned, SpawnState.FAILED, str(error))
        raise
    _node().start_agent(spawned)


@app.task(base=SystemTask, name="torch.retire")
def retire(agent_id: AgentId, order: RetireOrder) -> str:
    """Sent to the agent's node: end the agent. Returns at once, with the reason if that is refused."""
    return _refusal("agent.retire", agent_id, lambda: _node().retire_agent(agent_id, order))


@app.task(base=SystemTask, name="torch.release")
def release(agent_id: AgentId) -> str:
    """Sent to the agent's node: try the agent again. Returns the reason if that is refused."""
    return _refusal("agent.release", agent_id, lambda: _node().release_agent(agent_id))


def _refusal(operation: str, agent_id: str, order: Callable[[], None]) -> str:
    try:
        require(operation, Right.RETIRE, Subject(agent=agent_id))
        order()
    except TorchError as error:
        return str(error)
    return ""
