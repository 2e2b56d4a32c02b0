"""The messages that this agent got, as folders: what was said, how far it is in the pane, what became of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from torch_tasks.model.fields import now
from torch_tasks.model.message import Message, MessageState, Transport
from torch_tasks.system.files import write_private

_OUTCOME, _TOLD = "outcome.json", "told.json"


class MessageOutcome(BaseModel):
    """What became of a message here."""

    model_config = ConfigDict(frozen=True)

    state: MessageState
    note: str
    at: AwareDatetime
    transport: Transport = "broker"


class MessageFolder:
    """One message, and its folder; it stays when it was delivered, so that it never is again."""

    def __init__(self, letters: Path, message: Message) -> None:
        self.message = message
        self.tag = f"message {message.id}"
        self.folder = folder = letters / message.id
        self.prompt = folder / "text"
        self.begun = folder / "begun"
        self._outcome = folder / _OUTCOME
        self._told = folder / _TOLD

    @classmethod
    def read(cls, letters: Path, message_id: str) -> MessageFolder:
        """One that was kept; FileNotFoundError if there is none."""
        return cls(letters, Message.model_validate_json((letters / message_id / "message.json").read_bytes()))

    def keep(self) -> None:
        """Have it on the disk."""
        file = self.folder / "message.json"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_private(file, self.message.model_dump_json() + "\n")

    @property
    def hints(self) -> tuple[str, ...]:
        """What the agent is told beside the words: who says it, and how to answer."""
        message = self.message
        meant = (f"meant for {message.via}",) if message.via else ()
        return f"from {message.sender}", *meant, f'reply: torch-tasks reply --to {message.id} "…"'

    def outcome(self) -> MessageOutcome | None:
        """What became of it, if that is known."""
        for file in (self._told, self._outcome):
            if file.exists():
                return MessageOutcome.model_validate_json(file.read_bytes())
        return None

    def conclude(self, state: MessageState, note: str, transport: Transport) -> MessageOutcome:
        """Keep what became of it."""
        self.keep()
        outcome = MessageOutcome(state=state, note=note, at=now(), transport=transport)
        write_private(self._outcome, outcome.model_dump_json() + "\n")
        return outcome

    def told(self) -> None:
        """The broker knows it."""
        if self._outcome.exists():
            self._outcome.replace(self._told)

    def begin_anew(self) -> None:
        """Forget a submission of which the program has nothing, or of which nobody can tell."""
        for name in ("submission.json", "pasted", "begun", _OUTCOME, _TOLD):
            (self.folder / name).unlink(missing_ok=True)


def untold(letters: Path) -> Iterator[MessageFolder]:
    """Those of which the broker does not know yet what became of them."""
    for file in sorted(letters.glob(f"*/{_OUTCOME}")):
        yield MessageFolder.read(letters, file.parent.name)


def undelivered(letters: Path) -> Iterator[MessageFolder]:
    """Those that a former worker of this agent left without knowing what became of them, the oldest first."""
    open_ones = (file for file in letters.glob("*/message.json") if not _has_outcome(file.parent))
    for file in sorted(open_ones, key=lambda file: file.stat().st_mtime_ns):
        yield MessageFolder.read(letters, file.parent.name)


def _has_outcome(folder: Path) -> bool:
    return any((folder / name).exists() for name in (_TOLD, _OUTCOME))


def prune_messages(letters: Path, keep_days: float) -> None:
    """Remove what was settled longer ago than this."""
    oldest = time.time() - keep_days * 86400
    for told in letters.glob(f"*/{_TOLD}"):
        if told.stat().st_mtime < oldest:
            shutil.rmtree(told.parent)
