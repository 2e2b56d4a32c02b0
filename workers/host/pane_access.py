"""Whether a task may go into the agent's pane now, and what keeps it out."""

from __future__ import annotations

from dataclasses import replace

from torch_tasks.model.agent import AgentState
from torch_tasks.model.host import AgentHeld, UsageLimited
from torch_tasks.model.task import TaskSpec
from torch_tasks.workers.host.hosted_agent import HostedAgent
from torch_tasks.workers.programs.kind import login_hint


class PaneAccess:
    """The way of tasks into one agent's pane."""

    def __init__(self, agent: HostedAgent) -> None:
        self._agent = agent
        self._kind, self._terminal = agent.kind, agent.terminal

    def is_free(self) -> bool:
        """Whether the pane shows a program that takes a task, and an empty input line."""
        return self._terminal.is_free()

    def why_not(self) -> str:
        """What keeps a task out; raises :class:`UsageLimited` if it is a limit."""
        reading = self._kind.read(self._terminal.pane)
        if reading.state is AgentState.LIMITED:
            raise UsageLimited("the agent's usage limit is reached", reading.until)
        if reading.question:
            return f"the agent's program asks: {reading.question.text}"
        if reading.state is AgentState.LOGIN:
            return login_hint(self._kind.agent_id)
        hindered = replace(reading, hindrance=self._kind.hindrance(self._terminal.pane))
        return hindered.obstacle or f"the agent's program is {reading.state}"

    def leave_to_others(self, spec: TaskSpec, why: str) -> None:
        """Raise :class:`AgentHeld` for a task that any agent may do as soon as only a person can free the pane."""
        if not self._kind.is_conversational or spec.agent or self._agent.presence.journal.current:
            return
        self._terminal.look_at_rest(has_messages=self._agent.has_messages())
        if self._terminal.held_up:
            raise AgentHeld(f"{self._kind.agent_id} is held up: {why}")
