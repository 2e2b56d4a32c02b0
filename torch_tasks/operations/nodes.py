"""The operations on machines, and on the pools of agents that live there."""

from __future__ import annotations

from pydantic import Field

from torch_tasks.fleet import fleet
from torch_tasks.model.node import NodeInfo
from torch_tasks.operations.operation import WAIT_SECONDS, Access, Nothing, Request, WaitSeconds, operation
from torch_tasks.orchestration import staffing
from torch_tasks.orchestration.scaling import Autoscaler, ScalingPlan
from torch_tasks.orchestration.staffing import DrainReport
from torch_tasks.security.rights import Right


class OfNode(Request):
    """A request about one machine."""

    node: str = Field(description="The machine's name.")


@operation("node.list", Right.LOOK)
def list_nodes(asked: Nothing) -> list[NodeInfo]:
    """The machines of the fleet, with their capacity and the agents they keep."""
    return fleet().nodes.nodes()


@operation("node.get", Right.LOOK)
def get(asked: OfNode) -> NodeInfo:
    """One machine, and the state of each agent it keeps."""
    return fleet().nodes.get_node(asked.node)


class Drain(OfNode):
    hand_over: bool = Field(False, description="Hand its tasks over to able agents elsewhere.")


@operation("node.drain", Right.HOLD, access=Access.WRITE)
def drain(asked: Drain) -> DrainReport:
    """Take a machine out of use: no agent is started there, and its agents take no new tasks."""
    return staffing.drain(asked.node, hand_over_tasks=asked.hand_over)


class AwaitEmpty(OfNode):
    seconds: WaitSeconds = WAIT_SECONDS


@operation("node.at_work", Right.LOOK)
def at_work(asked: AwaitEmpty) -> list[tuple[str, str]]:
    """Wait until no task runs on a machine; returns the agents that still work, each with its task."""
    return staffing.await_empty(asked.node, asked.seconds)


@operation("node.undrain", Right.HOLD, access=Access.WRITE)
def undrain(asked: OfNode) -> tuple[str, ...]:
    """Put a drained machine back to use; returns the agents that take tasks again."""
    return staffing.undrain(asked.node)


@operation("pool.plan", Right.LOOK)
def plan(asked: Nothing) -> ScalingPlan:
    """By how many agents each pool would grow now, and why."""
    return Autoscaler(fleet()).plan()


@operation("pool.grow", Right.SPAWN, access=Access.WRITE)
def grow(asked: Nothing) -> ScalingPlan:
    """Grow the pools to match the waiting tasks, as beat does at intervals; returns what was decided, and why."""
    return Autoscaler(fleet()).step()
