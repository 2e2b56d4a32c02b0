"""What an agent's folder keeps on disk: the journal of its pane, and a folder for each attempt and each message.

A worker that comes back goes on from these files. Each is replaced whole and flushed to the disk before it counts.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from torch_tasks.errors import IllegalTransition, StateFolderUnusable
from torch_tasks.model.agent import AgentSpec, Performance
from torch_tasks.model.fields import now
from torch_tasks.model.message import Message, MessageState, Transport
from torch_tasks.model.task import TaskResult
from torch_tasks.system.files import write_private

_MESSAGE, _SUBMISSION, _OUTCOME, _REPORTED = "message.json", "submission.json", "outcome.json", "reported.json"


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
    """The spec under which the agent was hosted last."""
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


class PromptFolder:
    """An attempt or a message, as the folder of what is put into the agent's program for it."""

    def __init__(self, tag: str, folder: Path, prompt: str) -> None:
        self.tag = tag
        """What it is, and its id: ``task t-1``."""
        self.folder = folder
        self.prompt = folder / prompt
        self.begun = folder / "begun"
        """Exists once the program may have it."""


# ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────


class AttemptFolder(PromptFolder):
    """One attempt at a task, on disk."""

    def __init__(self, runs: Path, task_id: str, attempt: int) -> None:
        super().__init__(f"task {task_id}", runs / f"{task_id}.{attempt}", "prompt")
        folder = self.folder
        self.task_id = task_id
        self.attempt = attempt
        self.context = folder / "context.json"
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
        """Keep the task's record, and the message by which the task came: the broker may forget both.

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
        """The task's record as it was kept last."""
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


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


class MessageStage(StrEnum):
    """How far a message is at this worker."""

    NEW = "new"
    """Nothing of it is on disk."""
    WAITING = "waiting"
    """It is on disk, and nothing of it in the program."""
    BEGUN = "begun"
    """Its text may be in the program."""
    CONCLUDED = "concluded"
    """What became of it is on disk, and the broker does not know it yet."""
    REPORTED = "reported"
    """The broker knows it, too. The folder stays, so that the message is never delivered again."""


STAGES: dict[MessageStage, frozenset[MessageStage]] = {
    MessageStage.NEW: frozenset({MessageStage.WAITING}),
    MessageStage.WAITING: frozenset({MessageStage.WAITING, MessageStage.BEGUN, MessageStage.CONCLUDED}),
    # The program certainly does not have it: it waits again.
    MessageStage.BEGUN: frozenset({MessageStage.WAITING, MessageStage.CONCLUDED}),
    # Given up, and replayed by a person: it waits again, or is given up again.
    MessageStage.CONCLUDED: frozenset({MessageStage.REPORTED, MessageStage.WAITING, MessageStage.CONCLUDED}),
    MessageStage.REPORTED: frozenset({MessageStage.WAITING, MessageStage.CONCLUDED}),
}
"""Which stage may follow which."""


class MessageOutcome(BaseModel):
    """What became of a message here."""

    model_config = ConfigDict(frozen=True)

    state: MessageState
    note: str
    at: AwareDatetime
    transport: Transport = "broker"


class MessageFolder(PromptFolder):
    """One message on disk."""

    def __init__(self, messages: Path, message: Message) -> None:
        super().__init__(f"message {message.id}", messages / message.id, "text")
        self.message = message
        self._outcome = self.folder / _OUTCOME
        self._reported = self.folder / _REPORTED

    @classmethod
    def read(cls, messages: Path, message_id: str) -> MessageFolder:
        """The folder of a message that was kept; FileNotFoundError if there is none."""
        return cls(messages, Message.model_validate_json((messages / message_id / _MESSAGE).read_bytes()))

    @property
    def stage(self) -> MessageStage:
        """How far the message is."""
        if self._outcome.exists():
            return MessageStage.CONCLUDED
        if self._reported.exists():
            return MessageStage.REPORTED
        if (self.folder / _SUBMISSION).exists():
            return MessageStage.BEGUN
        return MessageStage.WAITING if (self.folder / _MESSAGE).exists() else MessageStage.NEW

    @property
    def is_begun(self) -> bool:
        """Its text may be in the program, or was."""
        return (self.folder / _SUBMISSION).exists()

    @property
    def hints(self) -> tuple[str, ...]:
        """What the agent reads beside the text: its sender, and how to reply."""
        message = self.message
        meant = (f"meant for {message.via}",) if message.via else ()
        return f"from {message.sender}", *meant, f'reply: torch-tasks reply --to {message.id} "…"'

    @property
    def outcome(self) -> MessageOutcome | None:
        """What became of it, if that is known."""
        for file in (self._outcome, self._reported):
            if file.exists():
                return MessageOutcome.model_validate_json(file.read_bytes())
        return None

    def keep(self) -> None:
        """Write the message to the disk."""
        if self.stage is MessageStage.NEW:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_private(self.folder / _MESSAGE, self.message.model_dump_json() + "\n")

    def conclude(self, state: MessageState, note: str, transport: Transport) -> MessageOutcome:
        """Keep what became of it."""
        self.keep()
        self._require(MessageStage.CONCLUDED)
        outcome = MessageOutcome(state=state, note=note, at=now(), transport=transport)
        write_private(self._outcome, outcome.model_dump_json() + "\n")
        return outcome

    def note_reported(self) -> None:
        """The broker knows what became of it."""
        if self.stage is MessageStage.CONCLUDED:
            self._outcome.replace(self._reported)

    def wait_again(self) -> None:
        """Forget what was done with it: the program has nothing of it, or it is to be delivered once more."""
        self._require(MessageStage.WAITING)
        for name in (_SUBMISSION, "pasted", "begun", _OUTCOME, _REPORTED):
            (self.folder / name).unlink(missing_ok=True)

    def _require(self, stage: MessageStage) -> None:
        if stage not in STAGES[self.stage]:
            raise IllegalTransition(f"message {self.message.id} is {self.stage} and cannot be {stage}")


def unreported(messages: Path) -> Iterator[MessageFolder]:
    """The messages whose outcome the broker does not know yet."""
    for file in sorted(messages.glob(f"*/{_OUTCOME}")):
        yield MessageFolder.read(messages, file.parent.name)


def undelivered(messages: Path) -> Iterator[MessageFolder]:
    """The messages without an outcome that a former worker of this agent left, the oldest first."""
    open_ones = (file for file in messages.glob(f"*/{_MESSAGE}") if not _has_outcome(file.parent))
    for file in sorted(open_ones, key=lambda file: file.stat().st_mtime_ns):
        yield MessageFolder.read(messages, file.parent.name)


def _has_outcome(folder: Path) -> bool:
    return any((folder / name).exists() for name in (_REPORTED, _OUTCOME))


def prune_messages(messages: Path, keep_days: float) -> None:
    """Remove the messages that were settled longer ago than this."""
    oldest = time.time() - keep_days * 86400
    for reported in messages.glob(f"*/{_REPORTED}"):
        if reported.stat().st_mtime < oldest:
            shutil.rmtree(reported.parent)
