"""Which of Torch's own Celery tasks node workers have done, and what came of each, while their messages count.

It is known on the machine that did it, where who may write to the broker does not reach, and on the broker, signed, for
the other machines.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.signed_results import believed_text, require_node, signed_text
from torch_tasks.errors import BrokerAway, SignatureRefused
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.transport.envelope import SIGNED_SECONDS

log = logging.getLogger(__name__)


class DoneOrder(NamedTuple):
    outcome: Any
    """What the task returned."""


class DoneOrders:
    def __init__(self, client: redis.Redis, file: Path) -> None:
        self._client = client
        self._file = file

    def find(self, task_id: str) -> DoneOrder | None:
        """What came of it; None if it was not done."""
        if task_id in self._here:
            return DoneOrder(self._here[task_id])
        with suppress(BrokerAway):
            if text := self._client.get(keys.done_order(task_id)):
                return _read(task_id, str(text))
        return None

    def note(self, task_id: str, outcome: Any) -> None:
        """Note that it was done. What cannot be noted is done: its message may then do it again."""
        line = {"task": task_id, "at": time.time(), "outcome": outcome}
        self._here[task_id] = outcome
        try:
            make_folder(self._file.parent)
            with os.fdopen(os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            log.error("%s: it could not be noted that task %s is done: %s", self._file, task_id, error)
        with suppress(BrokerAway):
            text = signed_text(json.dumps(line), order=task_id)
            self._client.set(keys.done_order(task_id), text, ex=int(SIGNED_SECONDS))

    @cached_property
    def _here(self) -> dict[str, Any]:
        """What this machine did; what is older than any message that counts is forgotten."""
        found, since = [], time.time() - SIGNED_SECONDS
        with suppress(FileNotFoundError):
            lines = self._file.read_text().splitlines()
            for line in lines:
                with suppress(ValueError):  # its process was killed while it wrote it
                    found.append(json.loads(line))
            recent = [one for one in found if one["at"] > since]
            if len(recent) < len(lines):
                write_private(self._file, "".join(json.dumps(one) + "\n" for one in recent))
            found = recent
        return {one["task"]: one["outcome"] for one in found}


def _read(task_id: str, text: str) -> DoneOrder | None:
    try:
        bare, signed = believed_text(text, order=task_id)
        require_node(signed)
        return DoneOrder(json.loads(bare)["outcome"])
    except (SignatureRefused, ValueError, KeyError, TypeError) as error:
        log.error("what lay on the broker of the task %s is not believed: %s", task_id, error)
        return None
