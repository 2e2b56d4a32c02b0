"""What an agent's folder keeps on disk: the journal of its pane, and a folder for each attempt and each message.

The next worker goes on from these files. Each is replaced whole and flushed to the disk before it counts.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from torch_tasks.errors import IllegalTransition, StateFolderUnusable
from torch_tasks.model.agent import AgentSpec, Performance
from torch_tasks.model.fields import now
from torch_tasks.model.message import Message, MessageState, Transport
from torch_tasks.model.task import TaskResult
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.state_folder import PROGRAM, RUNS
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
    span: str | None = None
    """The task's span, as a ``traceparent``, for what the agent does meanwhile."""


class CutOff(BaseModel):
    """An attempt's program was killed; a program with the same conversation may go on with the attempt, once."""

    model_config = ConfigDict(frozen=True)

    conversation: str
    round: int
    """The submission that the program was killed with; a later one asked a program to go on."""


class AgentJournal(BaseModel):
    """The agent's pane and the task in it."""

    model_config = ConfigDict(frozen=True)

    agent_id: str
    kind: str
    spec: AgentSpec | None = None
    """The agent's latest spec."""
    incarnation: int = 0
    pane: str | None = None
    session: int | None = None
    """The process id of the leader of the pane's session."""
    folder: str | None = None
    """The folder in which the pane's program was started."""
    conversation: str | None = None
    """The program's conversation, with which a later program in this folder goes on."""
    sandbox: str = ""
    """Whether the program was started in a box, and if not, why."""
    release: str | None = None
    """The program's release."""
    current: CurrentAttempt | None = None
    performance: Performance = Performance()
    """How the agent's tasks ended, in case the broker forgets it."""

    @classmethod
    def read(cls, path: Path) -> AgentJournal | None:
        """The journal at this path, if there is one."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StateFolderUnusable(f"the journal {path} cannot be read: {error}; repair or remove it") from None

    def write(self, path: Path) -> None:
        write_private(path, self.model_dump_json(indent=2) + "\n")


class PromptFolder:
    """The folder of an attempt or a message, with the text that the agent's program gets."""

    def __init__(self, tag: str, folder: Path, prompt: str) -> None:
        self.tag = tag
        """What it is, and its id: ``task t-1``."""
        self.folder = folder
        self.prompt = folder / prompt
        self.begun = folder / "begun"
        """Exists once the program may have the text."""


# ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────


class AttemptFolder(PromptFolder):
    """One attempt at a task, on disk."""

    def __init__(self, runs: Path, task_id: str, attempt: int) -> None:
        name = f"{task_id}.{attempt}"
        super().__init__(f"task {task_id}", runs / name, "prompt")
        self.written = runs.parent / PROGRAM / RUNS / name
        """What the agent's program writes itself; nothing else here is its to write."""
        self.begun = self.written / "begun"
        self.task_id = task_id
        self.attempt = attempt
        self.context = self.folder / "context.json"
        self.output = self.written / "output"
        self.exit = self.written / "exit"
        self.halted = self.folder / "halted"
        self.interrupted = self.folder / "interrupted"
        self.cut_off_file = self.folder / "cut_off.json"
        self.tree_file = self.folder / "tree.json"
        self.oom_kills = self.folder / "oom_kills"
        self.result_file = self.folder / "result.json"
        self.account_file = self.folder / "account.json"

    def open(self) -> None:
        """Make the folder, empty, for an attempt that is about to begin."""
        for folder in (self.folder, self.written):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def result(self) -> TaskResult | None:
        """How the attempt ended, if it has."""
        try:
            return TaskResult.model_validate_json(self.result_file.read_bytes())
        except FileNotFoundError:
            return None

    def store(self, result: TaskResult) -> None:
        """Keep the result, so that another delivery of the task returns it and does nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.result_file, result.model_dump_json(indent=2) + "\n")

    def interrupt(self, why: str) -> None:
        """Note that the program is ended on purpose, in the middle of the attempt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.interrupted, why + "\n")

    @property
    def interruption(self) -> str | None:
        """Why the program was ended in the middle of the attempt, which it did not finish."""
        if self.interrupted.exists() and not self.begun.exists():
            return self.interrupted.read_text().strip()
        return None

    @property
    def cut_off(self) -> CutOff | None:
        """How its program was killed, if it was and another may go on or has gone on."""
        try:
            return CutOff.model_validate_json(self.cut_off_file.read_bytes())
        except FileNotFoundError:
            return None

    def note_cut_off(self, cut_off: CutOff) -> None:
        """Note that its program was killed."""
        write_private(self.cut_off_file, cut_off.model_dump_json() + "\n")

    def remember(self, account: Mapping[str, str], message: str | None) -> None:
        """Keep the task's record and the message by which the task came, in case the broker forgets them.

        An empty account, or one older than that on disk, comes from a broker that has forgotten already.
        """
        kept = self.recall()
        if kept and int(kept[0]["revision"]) > int(account.get("revision", 0)):
            account = kept[0]
        if not account:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.account_file, json.dumps({"account": dict(account), "message": message}) + "\n")

    def recall(self) -> tuple[dict[str, str], str | None] | None:
        """The record and the message that were kept last, if any."""
        try:
            kept = json.loads(self.account_file.read_bytes())
        except FileNotFoundError:
            return None
        return kept["account"], kept["message"]

    @property
    def kept_account(self) -> dict[str, str] | None:
        """The task's record that was kept last."""
        kept = self.recall()
        return kept[0] if kept else None

    def begun_now(self, delivery: str | None) -> CurrentAttempt:
        """What the journal says of it from its beginning on."""
        return CurrentAttempt(
            task_id=self.task_id, attempt=self.attempt, begun_at=now(), delivery=delivery, span=self.span
        )

    @property
    def span(self) -> str:
        """The task's span, as a ``traceparent``, for what happens within it."""
        return str(TraceParent.of((self.kept_account or {}).get("trace"), self.task_id).under(self.task_id))

    def forget_account(self) -> None:
        """Keep no record of a task that another agent has now."""
        self.account_file.unlink(missing_ok=True)


def kept_attempts(runs: Path) -> Iterator[AttemptFolder]:
    """Every attempt in this folder whose record is kept."""
    for file in runs.glob("*/account.json"):
        task_id, attempt = file.parent.name.rsplit(".", 1)
        yield AttemptFolder(runs, task_id, int(attempt))


def prune_attempts(folder: Path, keep_days: float) -> None:
    """Remove the attempts that ended longer ago than this."""
    for removed in _remove_folders(folder.glob("*/result.json"), keep_days):
        shutil.rmtree(folder.parent / PROGRAM / RUNS / removed.name, ignore_errors=True)


def _remove_folders(files: Iterable[Path], keep_days: float) -> list[Path]:
    """Remove the folders of those files that were written longer ago than this; returns which these were."""
    oldest = time.time() - keep_days * 86400
    folders = [file.parent for file in files if file.stat().st_mtime < oldest]
    for folder in folders:
        shutil.rmtree(folder)
    return folders


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


class MessageStage(StrEnum):
    """How far a message is at this worker."""

    NEW = "new"
    """It is not on disk."""
    WAITING = "waiting"
    """It is on disk, and nothing of it is in the program."""
    BEGUN = "begun"
    """Its text may be in the program."""
    CONCLUDED = "concluded"
    """Its outcome is on disk, and the broker does not know it yet."""
    REPORTED = "reported"
    """The broker knows the outcome, too. The folder stays, so that the message is never delivered again."""


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
    """What became of a message at this worker."""

    model_config = ConfigDict(frozen=True)

    state: MessageState
    note: str
    at: AwareDatetime
    transport: Transport = "broker"


class MessageTaken(BaseModel):
    """The program that took a message, by its session and its conversation."""

    model_config = ConfigDict(frozen=True)

    session: int | None
    conversation: str | None
    is_resumed: bool = False
    """It was asked to go on with the message, which it has from a program that was killed."""


class MessageFolder(PromptFolder):
    """One message on disk."""

    def __init__(self, messages: Path, message: Message) -> None:
        super().__init__(f"message {message.id}", messages / message.id, "text")
        self.message = message
        self._outcome = self.folder / _OUTCOME
        self._reported = self.folder / _REPORTED
        self._taken = self.folder / "taken.json"
        self._over = self.folder / "over"

    @classmethod
    def read(cls, messages: Path, message_id: str) -> MessageFolder:
        """The folder of a message that was kept; FileNotFoundError if it was not."""
        return cls(messages, Message.model_validate_json((messages / message_id / _MESSAGE).read_bytes()))

    @property
    def stage(self) -> MessageStage:
        if self._outcome.exists():
            return MessageStage.CONCLUDED
        if self._reported.exists():
            return MessageStage.REPORTED
        if (self.folder / _SUBMISSION).exists():
            return MessageStage.BEGUN
        return MessageStage.WAITING if (self.folder / _MESSAGE).exists() else MessageStage.NEW

    @property
    def is_begun(self) -> bool:
        """Whether its text may be in the program, or was."""
        return (self.folder / _SUBMISSION).exists()

    @property
    def hints(self) -> tuple[str, ...]:
        """What the agent reads beside the text: the sender, and how to reply."""
        message = self.message
        via = (f"meant for {message.via}",) if message.via else ()
        return f"from {message.sender}", *via, f'reply: torch-tasks reply --to {message.id} "…"'

    @property
    def outcome(self) -> MessageOutcome | None:
        """What became of it, if known."""
        for file in (self._outcome, self._reported):
            if file.exists():
                return MessageOutcome.model_validate_json(file.read_bytes())
        return None

    @property
    def taken(self) -> MessageTaken | None:
        """Which program works on it; None if none does, or if the work on a task holds it, too."""
        if self._over.exists() or not self._taken.exists():
            return None
        return MessageTaken.model_validate_json(self._taken.read_bytes())

    def note_taken(self, taken: MessageTaken) -> None:
        """Note which program works on it."""
        self._over.unlink(missing_ok=True)
        write_private(self._taken, taken.model_dump_json() + "\n")

    def note_over(self) -> None:
        """Note that no program works on it any more."""
        self._over.touch()

    def keep(self) -> None:
        """Write the message to the disk, if it is not there."""
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
        """Note that the broker knows the outcome."""
        if self.stage is MessageStage.CONCLUDED:
            self._outcome.replace(self._reported)

    def wait_again(self) -> None:
        """Forget what was done with it: it was not delivered, or is to be delivered once more."""
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
    for file in sorted(messages.glob(f"*/{_MESSAGE}"), key=lambda file: file.stat().st_mtime_ns):
        if not any((file.parent / name).exists() for name in (_REPORTED, _OUTCOME)):
            yield MessageFolder.read(messages, file.parent.name)


def prune_messages(messages: Path, keep_days: float) -> None:
    """Remove the messages that were settled longer ago than this."""
    _remove_folders(messages.glob(f"*/{_REPORTED}"), keep_days)
