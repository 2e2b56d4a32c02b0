"""Reports of git discipline: the state of the agents' trees, as each node last found it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import redis
from pydantic import AwareDatetime, BeforeValidator

from torch_tasks import keys
from torch_tasks import settings as own
from torch_tasks.broker.connection import connect
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.model.fields import AgentId, Model, Role
from torch_tasks.model.reader import read_model


def shown(text: str) -> str:
    """A name of a file or branch, which may be any bytes, as text."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


Shown = Annotated[str, BeforeValidator(shown)]


class LeftOut(Model):
    path: Shown
    why: str


class Committed(Model):
    id: str
    at: AwareDatetime
    subject: Shown


class TreeReport(Model):
    tree: Shown
    task: str | None = None
    """The task for which it was made."""
    branch: Shown | None = None
    uncommitted: int = 0
    """How many files are not committed, without those left out."""
    uncommitted_since: AwareDatetime | None = None
    left_out: tuple[LeftOut, ...] = ()
    left_out_more: int = 0
    """How many more were left out than ``left_out`` names."""
    trouble: Shown | None = None
    """Why due work was not committed."""
    last_commit: Committed | None = None
    last_tag: Shown | None = None


class GitReport(Model):
    agent: AgentId
    role: Role
    node: str
    looked_at: AwareDatetime
    trees: tuple[TreeReport, ...] = ()
    trouble: Shown | None = None
    """Why the trees could not be read, or why a verified task has no tag."""


class GitReports:
    """The last report of each agent, on this process's broker unless a client is given."""

    def __init__(self, client: redis.Redis | None = None) -> None:
        self._client = client or connect(own.settings().broker())

    def all(self) -> list[GitReport]:
        reports = {str(agent): str(text) for agent, text in sorted(self._client.hgetall(keys.GIT_REPORTS).items())}
        refused = RefusedLetters(self._client)
        return list(refused.readable(keys.GIT_REPORTS, reports, lambda _, text: read_model(GitReport, text)).values())

    def put(self, report: GitReport) -> None:
        self._client.hset(keys.GIT_REPORTS, report.agent, report.model_dump_json())

    def drop(self, node: str, but: Collection[str]) -> None:
        """Delete the node's reports on all agents but these."""
        gone = [report.agent for report in self.all() if report.node == node and report.agent not in but]
        if gone:
            self._client.hdel(keys.GIT_REPORTS, *gone)
