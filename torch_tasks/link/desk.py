"""The link of a process in an agent's pane: it asks at the desk that the agent's worker serves.

Light to import, as every report of an agent loads it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_tasks.caller import own_desk
from torch_tasks.errors import DeskAway, DeskBusy, FrameRefused
from torch_tasks.link.frames import HEAD, REPLY_BYTES, frame, size_of
from torch_tasks.link.raised import error_named

if TYPE_CHECKING:
    from torch_tasks.operations.operation import Asked, Operation, Reply

PATIENCE_VARIABLE = "TORCH_DESK_SECONDS"
_PATIENCE_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5


def desk_of_this_pane() -> DeskLink | None:
    """The desk of the agent in whose pane this process runs; None elsewhere."""
    path = own_desk()
    return DeskLink(path) if path else None


class DeskLink:
    """Asks at one agent's desk.

    While no worker serves it, a request waits, and is asked again with the same key: nothing is done twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._patience = float(os.environ.get(PATIENCE_VARIABLE) or _PATIENCE_SECONDS)

    def perform(self, operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
        # An id that was not chosen follows from the key, where the request is carried out.
        made = {"id"} - asked.model_fields_set
        fields = asked.model_dump(mode="json", exclude=made)
        return operation.reply.validate_json(json.dumps(self.call(operation.name, fields, key)))

    def call(self, operation: str, fields: dict[str, Any], key: str | None = None) -> Any:
        """The reply to a request as JSON has it; raises the errors of the operation.

        :class:`DeskAway` if no worker serves the desk in time, :class:`DeskBusy` if it has no room for so long.
        """
        request = frame({"operation": operation, "fields": fields, "key": key or os.urandom(16).hex()})
        away_since, pause = None, _FIRST_PAUSE
        while True:
            try:
                answer = self._ask(request)
                if "error" not in answer:
                    return answer["reply"]
                error = error_named(answer["error"]["name"], answer["error"]["text"])
                if not isinstance(error, DeskBusy):
                    raise error
            except (OSError, EOFError) as why:
                error = DeskAway(
                    f"the worker of agent {self.path.parent.parent.name} does not serve its desk {self.path}: {why}. "
                    f"It was asked for {operation} for {self._patience:g} s; whether it did it before it went, "
                    "'torch-tasks tasks' and 'torch-tasks agent' show once it is back"
                )
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since >= self._patience:
                raise error
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _ask(self, request: bytes) -> dict[str, Any]:
        """The desk's answer; OSError or EOFError if there is none."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.path))
            with suppress(BrokenPipeError, ConnectionResetError):  # it refused the rest, and has said why
                connection.sendall(request)
            with connection.makefile("rb") as stream:
                size = size_of(_read(stream, HEAD.size), REPLY_BYTES)
                answer = json.loads(_read(stream, size))
        if not isinstance(answer, dict) or not answer.keys() & {"reply", "error"}:
            raise FrameRefused(f"the answer of the desk {self.path} is none of this version")
        return answer


def _read(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    if len(data) < size:
        raise EOFError("it hung up before it had answered")
    return data
