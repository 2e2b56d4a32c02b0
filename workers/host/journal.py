"""What an agent's folder keeps on disk: the journal of its pane, and a folder for each attempt at a task.

A worker that comes back goes on from these files. Each is replaced whole and flushed to the disk before it counts.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.agent import AgentSpec, Performance
from torch_tasks.model.task import TaskResult
from torch_tasks.system.files import write_private


class CurrentAttempt(BaseModel):
    """The task that the pane works on."""

    model_config = ConfigDict(frozen=True)

    task_id: str
    attempt: int
    begun_at: AwareDatetime
    delivery: str | None = None
    """The tag under which the task's message was taken last."""


class AgentJournal(BaseModel):
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
    current: CurrentAttempt | None = None
    performance: Performance = Performance()
    """How the tasks ended that the agent had; the broker may forget it."""

    @classmethod
    def read(cls, path: Path) -> AgentJournal | None:
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


class AttemptFolder:
    """One attempt at a task, on disk."""

    def __init__(self, runs: Path, task_id: str, attempt: int) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.tag = f"task {task_id}"
        self.folder = folder = runs / f"{task_id}.{attempt}"
        self.prompt = folder / "prompt"
        self.context = folder / "context.json"
        self.begun = folder / "begun"
        self.output = folder / "output"
        self.exit = folder / "exit"
        self.halted = folder / "halted"
        self.tree_file = folder / "tree.json"
        self.oom_kills = folder / "oom_kills"
        self.result_file = folder / "result.json"
        self.account_file = folder / "account.json"

    def open(self) -> None:
        """Make an empty folder for an attempt that is about to begin."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def result(self) -> TaskResult | None:
        """How the attempt ended, if it has."""
        try:
            return TaskResult.model_validate_json(self.result_file.read_bytes())
        except FileNotFoundError:
            return None

    def store(self, result: TaskResult) -> None:
        """Keep how the attempt ended, so that a next delivery is answered with it and does nothing again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.result_file, result.model_dump_json(indent=2) + "\n")

    def remember(self, account: Mapping[str, str], message: str | None) -> None:
        """Keep what the task's record says, and the message by which the task came: the broker may forget both.

        An account that is older than the one kept, or none, comes from a broker that has forgotten already.
        """
        kept = self.recall()
        if kept and int(kept[0]["revision"]) > int(account.get("revision", 0)):
            account = kept[0]
        if not account:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.account_file, json.dumps({"account": dict(account), "message": message}) + "\n")

    def recall(self) -> tuple[dict[str, str], str | None] | None:
        """What was kept last, if anything was."""
        try:
            kept = json.loads(self.account_file.read_bytes())
        except FileNotFoundError:
            return None
        return kept["account"], kept["message"]

    @property
    def kept_account(self) -> dict[str, str] | None:
        """What the task's record said last, as it is kept here."""
        kept = self.recall()
        return kept[0] if kept else None

    def forget_account(self) -> None:
        """Keep no record of the task, which is another agent's by now."""
        self.account_file.unlink(missing_ok=True)


def kept_attempts(runs: Path) -> Iterator[AttemptFolder]:
    """Every attempt that is kept in this folder."""
    for file in runs.glob("*/account.json"):
        task_id, attempt = file.parent.name.rsplit(".", 1)
        yield AttemptFolder(runs, task_id, int(attempt))


def prune_attempts(folder: Path, keep_days: float) -> None:
    """Remove the attempts that ended longer ago than this."""
    oldest = time.time() - keep_days * 86400
    for result in folder.glob("*/result.json"):
        if result.stat().st_mtime < oldest:
            shutil.rmtree(result.parent)


def head_and_tail(path: Path, limit: int) -> tuple[str, int]:
    """The text of a file, without its middle where it is larger than ``limit`` bytes; and its size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= limit:
                return file.read().decode(errors="replace"), size
            head = file.read(limit // 2)
            file.seek(size - limit // 2)
            tail = file.read()
    except FileNotFoundError:
        return "", 0
    left_out = size - len(head) - len(tail)
    notice = f"\n… {left_out:,} bytes left out, the whole answer is in {path} …\n"
    return head.decode(errors="replace") + notice + tail.decode(errors="replace"), size
