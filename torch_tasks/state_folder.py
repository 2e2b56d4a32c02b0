"""What lies where in a machine's state folder; ``keys.py`` says the same of the broker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

JOURNAL = "journal.json"
"""In an agent's folder: who the agent is, its pane, what it does."""
TMUX = "tmux"
"""In an agent's folder: the socket of its tmux server."""
HOST_LOCK = "lock"
"""In an agent's folder: held by the worker that hosts it."""
LAST_MESSAGE = "last_message"
"""In an agent's folder: the id of the message that came last."""
MAIL = "mail"
"""In an agent's folder: messages that came past the broker."""
EVENTS = "events"
"""In an agent's folder: what its program and its commands report."""
RETIRE_ORDER = "retire.json"
"""In an agent's folder: the order that it is to end."""


@dataclass(frozen=True)
class StateFolder:
    """The state folder of one machine."""

    path: Path

    @property
    def broker(self) -> Path:
        """The data, the configuration and the password of this machine's own broker."""
        return self.path / "broker"

    @property
    def broker_address(self) -> Path:
        """The address of that broker; left there when it has ended."""
        return self.path / "broker.json"

    @property
    def ledger(self) -> Path:
        """What was enqueued on this machine."""
        return self.path / "ledger.sqlite"

    def outbox(self, place: str) -> Path:
        """Messages that wait for one broker."""
        return self.path / "outbox" / place

    def beat(self, place: str) -> Path:
        """Beat's journal of one broker."""
        return self.path / "beat" / f"{place}.sqlite"

    @property
    def logs(self) -> Path:
        """A log for each process."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """The processes that run, found again by later commands."""
        return self.path / "run"

    @property
    def roster(self) -> Path:
        """The agents that the node worker keeps alive."""
        return self.path / "roster.json"

    @property
    def node_lock(self) -> Path:
        """Held by the node worker."""
        return self.path / "node.lock"

    @property
    def holds(self) -> Path:
        """What is paused and stopped, as this machine knows it."""
        return self.path / "holds.json"

    @property
    def holds_lock(self) -> Path:
        """Held by who changes that."""
        return self.path / "holds.lock"

    @property
    def stop(self) -> Path:
        """While this file is there, nothing begins on this machine."""
        return self.path / "STOP"

    @property
    def flower_password(self) -> Path:
        """Flower's password."""
        return self.path / "flower.password"

    @property
    def spent(self) -> Path:
        """What was spent of the budgets and not told to the broker yet."""
        return self.path / "spent"

    @property
    def worktrees(self) -> Path:
        """The git worktrees of tasks."""
        return self.path / "worktrees"

    def git_lock(self, name: str) -> Path:
        """Held by who changes the worktrees of one repository."""
        return self.path / "git" / f"{name}.lock"

    def agent(self, agent_id: str) -> Path:
        """The folder of one agent."""
        return self.path / "agents" / agent_id

    def agents(self) -> list[Path]:
        """The folders of all agents that were ever hosted here."""
        return sorted(self.path.glob("agents/*"))

    def retired(self, agent_id: str, incarnation: int) -> Path:
        """The last screen and the summary of an agent that has retired."""
        return self.path / "retired" / f"{agent_id}.{incarnation}.md"
