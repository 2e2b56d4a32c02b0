"""What goes from one agent to the next with a task that the first could not finish, or shall not."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Handoff(_Part):
    """What the next agent should know of a task that another one could not finish."""

    agent: str
    node: str
    noted_at: AwareDatetime
    screen: str = ""
    """What the pane showed last."""
    branch: str | None = None
    diff: str | None = None
    """What had changed in the workdir, if it is a git tree."""


class Handover(_Part):
    """A task that somebody hands over to another agent: by whom, from whom, to whom, and what they should know."""

    by: str
    owner: str | None = None
    """The agent that had the task, if one had begun."""
    to: str
    """An agent, or a role."""
    note: str = ""
    questions: tuple[str, ...] = ()
    attempt: int = 0
    """The try that is given up; the next one is the successor's."""
    pid: int | None = None
    """The command in the owner's own pane that asked for it, and shall return before its turn is ended."""

    @property
    def told(self) -> dict[str, Any]:
        """What the successor reads of it."""
        said = {"handed_over_by": self.by, "handed_over_to": self.to, "note": self.note}
        return said | {"questions": list(self.questions)}
