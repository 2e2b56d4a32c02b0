"""What the next agent knows of a task: how it was handed over, and what the one that could not finish it had done."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime

from torch_tasks.model.fields import KeptText, Model


class Handoff(Model):
    """What the next agent should know about a task that another one could not finish."""

    agent: str
    node: str
    noted_at: AwareDatetime
    screen: KeptText = ""
    """What the pane showed last."""
    branch: str | None = None
    diff: KeptText | None = None
    """The changes in the workdir, if it is a git tree."""


class Handover(Model):
    """A handover of a task: who asked for it, the former and the next agent, and what that one should know."""

    by: str
    owner: str | None = None
    """The agent that had the task, if one had begun."""
    to: str
    """An agent, or a role."""
    note: KeptText = ""
    questions: tuple[KeptText, ...] = ()
    attempt: int = 0
    """The number of the try that is given up."""
    pid: int | None = None
    """The command in the owner's pane that asked for it, which must return before its turn is ended."""

    @property
    def for_successor(self) -> dict[str, Any]:
        """The part that the next agent reads, in its task's context."""
        return {
            "handed_over_by": self.by,
            "handed_over_to": self.to,
            "note": self.note,
            "questions": list(self.questions),
        }
