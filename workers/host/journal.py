"""The host's memory on disk: what a worker that comes back must know of its agent.

Readable JSON, replaced whole and flushed to the disk before it counts.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.agent import AgentSpec, Performance
from torch_tasks.system.files import write_private


class CurrentRun(BaseModel):
    """The task that the pane works on."""

    model_config = ConfigDict(frozen=True)

    task_id: str
    attempt: int
    begun_at: AwareDatetime
    delivery: str | None = None
    """The tag under which the task's message was taken last."""


class Journal(BaseModel):
    """What is known of the agent's pane and of the task in it."""

    model_config = ConfigDict(frozen=True)

    agent_id: str
    kind: str
    spec: AgentSpec | None = None
    """As what the agent was hosted last, and where."""
    incarnation: int = 0
    pane: str | None = None
    session: int | None = None
    """The process that leads the pane's session."""
    folder: str | None = None
    """Where the pane's program was started."""
    current: CurrentRun | None = None
    performance: Performance = Performance()
    """How the tasks ended that the agent had; the broker may forget it."""
    broker: str | None = None
    """The broker's process that was told last what the agent knows of its tasks."""

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """The journal at this path; none if there is none yet."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StateFolderUnusable(f"the journal {path} cannot be read: {error}; repair or remove it") from None

    def write(self, path: Path) -> None:
        """Make this the journal."""
        write_private(path, self.model_dump_json(indent=2) + "\n")
