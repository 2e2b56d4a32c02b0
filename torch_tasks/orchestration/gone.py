"""Agents that are gone: they are silent, and no node worker starts them. They leave the list, or are forgotten."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta

from torch_tasks.caller import caller
from torch_tasks.errors import NotGone
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.model.agent import AgentInfo, RetirementReport
from torch_tasks.model.fields import now
from torch_tasks.model.node import NodeInfo
from torch_tasks.orchestration.staffing import bury_messages, give_tasks_back, remove_agent


def gone_agents(of: Fleet, agents: Collection[AgentInfo], nodes: Iterable[NodeInfo]) -> set[str]:
    """Those of these agents that were silent for ``TORCH_DETACHED_SECONDS`` while no node worker has them.

    None is, as long as the broker has run too briefly to have heard of all who live.
    """
    if not of.registry.has_heard_all():
        return set()
    latest = of.checkins.now() - timedelta(seconds=of.settings.detached_seconds)
    kept = _kept_by(nodes)
    return {
        info.agent_id
        for info in agents
        if not info.online
        and info.agent_id not in kept
        and (info.last_heartbeat is None or info.last_heartbeat < latest)
    }


def _kept_by(nodes: Iterable[NodeInfo]) -> dict[str, str]:
    """The agents that online node workers start again, or hold in quarantine, each with its node."""
    return {one.agent_id: node.name for node in nodes if node.online for one in node.agents}


def forget(agent_id: str) -> RetirementReport:
    """Remove an agent that does not come back from the fleet; see :meth:`torch_tasks.Torch.forget`."""
    of = fleet()
    info = of.registry.get_agent(agent_id)
    if reason := _why_not(info, of):
        raise NotGone(f"agent {agent_id} cannot be forgotten: {reason}")
    report = RetirementReport(
        agent_id=agent_id, node=info.node, incarnation=info.incarnation, by=caller().name, at=now(), forgotten=True
    )
    left = {"tasks": give_tasks_back(info, report.words, of), "messages": bury_messages(info, report.words, of)}
    report = report.model_copy(update={name: tuple(ids) for name, ids in left.items()})
    remove_agent(report, next(iter(of.spawns.get_many([agent_id])), None), of)
    return report


def _why_not(info: AgentInfo, of: Fleet) -> str:
    """Why this agent counts as there; empty if it is gone."""
    retire = f"'torch-tasks retire {info.agent_id}' ends it"
    if info.online:
        return f"it is online; {retire}"
    if node := _kept_by(of.nodes.nodes()).get(info.agent_id):
        return f"the node worker of {node} keeps it; {retire}"
    if info.current_task and info.agent_id not in {one.agent_id for one in of.registry.dead()}:
        return f"its pane may still work on task {info.current_task}; try again when that has gone to another agent"
    return ""
