"""The caller of this process: the agent in whose pane it runs, else a person."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from torch_tasks.state_folder import JOURNAL, StateFolder

OPERATOR = "operator"
"""The name of every person in messages and records; no agent can have this id."""
_AGENT, _TASK, _INCARNATION, _STATE = "TORCH_AGENT_ID", "TORCH_TASK_ID", "TORCH_INCARNATION", "TORCH_STATE_DIR"


@dataclass(frozen=True)
class Caller:
    """An agent, as the environment of its pane describes it, or a person."""

    agent: str | None = None
    incarnation: int | None = None
    folder: Path | None = None
    """The agent's folder on this machine."""

    @property
    def name(self) -> str:
        """The caller's name in messages and records."""
        return self.agent or OPERATOR

    @property
    def task(self) -> str | None:
        if task := os.environ.get(_TASK):
            return task
        if self.folder is None:
            return None
        try:  # a coding agent's program outlives its first task, so its environment names none
            journal = json.loads((self.folder / JOURNAL).read_bytes())
        except (OSError, ValueError):
            return None
        task = (journal.get("current") or {}).get("task_id")
        return str(task) if task else None


def caller() -> Caller:
    agent, state = os.environ.get(_AGENT) or None, os.environ.get(_STATE)
    if agent is None:
        return Caller()
    incarnation = os.environ.get(_INCARNATION, "")
    return Caller(
        agent,
        int(incarnation) if incarnation.isdecimal() else None,
        StateFolder(Path(state)).agent(agent) if state else None,
    )


def leave_pane() -> None:
    """Make this process, and those that it starts, act as a person although they run in an agent's pane."""
    for name in (_AGENT, _TASK, _INCARNATION):
        os.environ.pop(name, None)
