"""The outbox: the messages sent from this machine that are not known to have arrived, one file per message.

A file is written before its message goes to the broker, and stays until the receiver has the message. So messages
wait in order while the broker is away, and what it forgot is sent again; ids keep a message from arriving twice.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch_tasks.broker.reconciler import Reconciler
from torch_tasks.errors import BrokerForgot, InboxFull
from torch_tasks.model.message import Message, MessageState
from torch_tasks.store.messages import Inboxes
from torch_tasks.system.files import exclusive, make_folder, usable, write_private

BATCH = 200
CHECKED_SECONDS = 2.0
"""How often the outbox checks what has arrived."""

ON_ITS_WAY_SECONDS = 2.0
"""A younger message is most likely being sent by its own process; two of one sender still keep their order."""

Route = Callable[[Message], None]
"""Sends one message to the broker."""


class Outbox:
    """This machine's outbox for one broker."""

    def __init__(self, folder: Path) -> None:
        self._waiting = folder / "waiting"
        self._sent = folder / "sent"
        self._lock = folder / "lock"
        self._name = folder / "name"
        self._checked = folder / "checked"

    def keep(self, message: Message) -> Path:
        """Write the message to the disk, behind all earlier ones."""
        self._make_folders()
        file = self._waiting / f"{time.time_ns():020d}-{os.getpid():010d}-{message.id}.json"
        write_private(file, message.model_dump_json() + "\n")
        return file

    def _make_folders(self) -> None:
        if not self._waiting.is_dir():
            make_folder(self._waiting.parent)
            make_folder(self._waiting)
            make_folder(self._sent)

    def adopt(self, former: Path) -> None:
        """Take what lies in the outbox of a former broker.

        To the broker this is another outbox then, so that all of it is put back.
        """
        other = Outbox(former)
        for theirs, mine in ((other._sent, self._sent), (other._waiting, self._waiting)):
            for name in _files(theirs):
                self._make_folders()
                self._name.unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another process has taken it, or sent it
                    (theirs / name).replace(mine / name)

    def drop(self, file: Path) -> None:
        file.unlink(missing_ok=True)

    def accepted(self, file: Path) -> None:
        """Note that the broker has the message; the file is kept until the message has arrived."""
        with usable(file), contextlib.suppress(FileNotFoundError):  # another process has sent it, too
            file.replace(self._sent / file.name)

    def is_next(self, file: Path, sender: str) -> bool:
        """Whether no other message has to be sent before this one of the sender's."""
        latest = time.time_ns() - ON_ITS_WAY_SECONDS * 1e9
        for name in _files(self._waiting):
            if name >= file.name:
                break
            if int(name.split("-", 1)[0]) < latest:
                return False
            if (message := _read(self._waiting / name)) and message.sender == sender:
                return False
        return True

    def waiting(self) -> int:
        return len(_files(self._waiting))

    def unsettled(self) -> int:
        """How many messages were accepted and are not known to have arrived."""
        return len(_files(self._sent))

    def flush(self, send: Route) -> None:
        """Send the waiting messages in order; one that cannot be sent yet holds back the next to its receiver."""
        if not self.waiting():
            return
        with exclusive(self._lock):
            full: set[str] = set()
            for name in _files(self._waiting)[:BATCH]:
                message = _read(self._waiting / name)
                if message is None or message.target in full:
                    continue
                try:
                    send(message)
                except (InboxFull, BrokerForgot):
                    full.add(message.target)
                else:
                    self.accepted(self._waiting / name)

    def flush_and_check(self, reconciler: Reconciler, inboxes: Inboxes, send: Route) -> None:
        """Flush, send again what the broker forgot, and delete what has arrived."""
        self.flush(send)
        if not self._sent.is_dir() or self._was_checked() or not self.unsettled():
            return
        source = SentMessages(self.name, self._sent, inboxes, send)
        reconciler.reconcile(source)
        server = reconciler.server_that_knows(source)
        found = list(itertools.chain.from_iterable(source.batches()))
        had_all = server is not None and reconciler.server_that_knows(source) == server
        for file, state in found:
            if state.settled if state else had_all and _seconds_since(file) > inboxes.keep_seconds:
                file.unlink(missing_ok=True)
            elif state is None and had_all:
                # A former server accepted it, and its process learned that after the others had been put back.
                source.send_again(file)

    @property
    def name(self) -> str:
        """The name by which the broker knows this outbox."""
        if not self._name.exists():
            write_private(self._name, f"outbox {uuid.uuid4().hex}")
        return self._name.read_text()

    def _was_checked(self) -> bool:
        """Whether a process of this machine checked a moment ago; if not, this one does now."""
        with contextlib.suppress(FileNotFoundError):
            if 0 <= time.time() - self._checked.stat().st_mtime < CHECKED_SECONDS:
                return True
        self._checked.touch()
        return False


@dataclass(frozen=True)
class SentMessages:
    """The messages of an outbox that the broker accepted, and may have forgotten before they arrived."""

    name: str
    folder: Path
    inboxes: Inboxes
    send: Route

    def put_back(self) -> bool:
        """Send what the broker forgot; false if something cannot be sent yet."""
        forgotten = [file for file, state in itertools.chain.from_iterable(self.batches()) if state is None]
        return all(list(map(self.send_again, forgotten)))

    def send_again(self, file: Path) -> bool:
        """Send the message in this file, if there still is one; false if it cannot be sent yet."""
        try:
            if message := _read(file):
                self.send(message)
        except (InboxFull, BrokerForgot):
            return False
        return True

    def batches(self) -> Iterator[list[tuple[Path, MessageState | None]]]:
        """The files and the states of their messages on the broker, a page at a time, in the order of sending."""
        names = _files(self.folder)
        for start in range(0, len(names), BATCH):
            some = names[start : start + BATCH]
            states = self.inboxes.states([name.removesuffix(".json").split("-", 2)[2] for name in some])
            yield [(self.folder / name, state) for name, state in zip(some, states, strict=True)]


def _files(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".json") and name[0] != ".")  # noqa: PTH208
    except FileNotFoundError:
        return []


def _seconds_since(file: Path) -> float:
    """How long ago its message was written."""
    return time.time() - int(file.name.split("-", 1)[0]) / 1e9


def _read(file: Path) -> Message | None:
    try:
        return Message.model_validate_json(file.read_bytes())
    except FileNotFoundError:  # another process has just sent it
        return None
