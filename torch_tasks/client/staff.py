"""Waiting for agents: until one is ready, has retired, or has no task left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from torch_tasks import operations
from torch_tasks.errors import SpawnFailed, StillWorking
from torch_tasks.facades.polling import turns
from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.link.raised import error_named
from torch_tasks.model.agent import Lifetime, RetirementReport, RetireMode
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.spawn import SpawnOutcome, SpawnTicket


class SpawnFields(TypedDict, total=False):
    """The fields of an agent besides its role, skills and kind; see :class:`~torch_tasks.model.spawn.SpawnWish`."""

    agent_id: str | None
    node: str | None
    labels: Iterable[str]
    lifetime: Lifetime | str
    parent: str | None
    workdir: str | Path | None
    fresh: bool
    memory: str | int | None
    cpu: float | None
    processes: int | None


class SpawnHandle:
    """An agent that was asked for."""

    def __init__(self, ticket: SpawnTicket, link: Link) -> None:
        self.id = ticket.id
        self._patience = ticket.seconds
        self._link = link
        self._outcome: SpawnOutcome | None = None

    def __repr__(self) -> str:
        return f"<SpawnHandle {(self._outcome and self._outcome.agent_id) or self.id}>"

    @property
    def ready(self) -> bool:
        """The agent takes tasks."""
        outcome = self._outcome_within(0)
        return outcome is not None and outcome.ready

    @property
    def agent_id(self) -> str:
        """The agent's id; waits as :meth:`wait` does."""
        return str(self.wait()._settled().agent_id)

    @property
    def node(self) -> str:
        """The agent's machine; waits as :meth:`wait` does."""
        return str(self.wait()._settled().node)

    def wait(self, timeout: float | None = None) -> SpawnHandle:
        """Return when the agent is ready. :class:`SpawnRefused` names the limit, :class:`SpawnFailed` the reason."""
        outcome = self._settled(timeout)
        if not outcome.ready:
            raise error_named(outcome.error, outcome.reason)
        return self

    def retire(self, **how: Any) -> RetirementReport | None:
        """End the agent; see :meth:`Torch.retire`."""
        return retire(self.agent_id, self._link, **how)

    def _settled(self, timeout: float | None = None) -> SpawnOutcome:
        patience = self._patience if timeout is None else timeout
        for seconds in turns(patience):
            if outcome := self._outcome_within(seconds):
                return outcome
        raise SpawnFailed(
            f"no node worker reported within {describe_duration(patience)} whether the agent started; "
            "'torch-tasks node list' shows which are online, 'torch-tasks agents' whether the agent started after all"
        )

    def _outcome_within(self, seconds: float) -> SpawnOutcome | None:
        if self._outcome is None:
            self._outcome = self._link.perform(
                operations.agents.spawned, operations.agents.AwaitSpawn.build(id=self.id, seconds=seconds)
            )
        return self._outcome


def retire(
    agent_id: str,
    link: Link,
    *,
    leave: RetireMode | str = RetireMode.FINISH,
    note: str = "",
    wait: bool = True,
    timeout: float | None = None,
) -> RetirementReport | None:
    """End an agent; see :meth:`torch_tasks.Torch.retire`."""
    link.perform(operations.agents.retire, operations.agents.Retire.build(agent_id=agent_id, leave=leave, note=note))
    return _await_retirement(agent_id, timeout, link) if wait else None


def await_empty(node: str, timeout: float, link: Link | None = None) -> None:
    """Return when no agent works on this node; :class:`StillWorking` if that takes longer than ``timeout`` seconds."""
    for seconds in turns(timeout):
        left = (link or own_link()).perform(
            operations.nodes.at_work, operations.nodes.AwaitEmpty.build(node=node, seconds=seconds)
        )
        if not left:
            return
    at_work = ", ".join(f"{agent} (task {task})" for agent, task in left)
    raise StillWorking(
        f"still working on {node} after {describe_duration(timeout)}: {at_work}; no new task begins "
        "there, and 'torch-tasks node drain --hand-over' gives these to other agents"
    )


def _await_retirement(agent_id: str, timeout: float | None, link: Link) -> RetirementReport:
    for seconds in turns(timeout):
        asked = operations.agents.AwaitRetirement.build(agent_id=agent_id, seconds=seconds)
        if report := link.perform(operations.agents.retired, asked):
            return report
    task = link.perform(operations.agents.get, operations.agents.OfAgent.build(agent_id=agent_id)).current_task
    raise StillWorking(
        f"agent {agent_id} still {f'works on task {task}' if task else 'has not ended'} after "
        f"{describe_duration(timeout or 0)}; it takes no new tasks and retires by itself. "
        "'torch-tasks retire --now' or '--hand-over' does not wait for its task"
    )
