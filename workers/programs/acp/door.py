"""The socket of the program in an ``acp`` agent's pane: what the agent's worker asks of it, and what it answers.

The program in the pane is ``pane``. What happens there it reports in the agent's folder of events; the socket is
for orders and for its state at this moment.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question
from torch_tasks.state_folder import PROGRAM, require_short
from torch_tasks.system.files import write_private
from torch_tasks.workers.programs.answering import Answered

LINE_BYTES = 64_000_000
"""The longest line that the pane's program reads, of the agent's program or of its worker."""
_SECONDS = 10.0
_SOCKET, _START, _SESSION = f"{PROGRAM}/acp", f"{PROGRAM}/acp.json", f"{PROGRAM}/acp.session"
EVENT = "acp."
"""How the names of the events begin."""
Reply = TypeVar("Reply")


class PaneAway(Exception):
    """The program in the pane does not answer."""


class PaneStart(BaseModel):
    """What the program in the pane is started for; on the disk before it is."""

    model_config = ConfigDict(frozen=True)

    life: str
    """Names this start: a prompt that was given to a former program is none of the new one's."""
    command: tuple[str, ...]
    session: str | None = None
    """The session to go on with, if the agent's program can."""
    auth: str | None = None
    mode: str | None = None
    model: str | None = None

    @classmethod
    def read(cls, folder: Path) -> PaneStart:
        return cls.model_validate_json((folder / _START).read_bytes())

    def write(self, folder: Path) -> None:
        write_private(folder / _START, self.model_dump_json(indent=1) + "\n")


class KeptSession(BaseModel):
    """The session of the agent's program, kept for the next one."""

    model_config = ConfigDict(frozen=True)

    session: str
    is_kept: bool
    """The program can go on with a former one's session."""

    @classmethod
    def read(cls, folder: Path) -> KeptSession | None:
        """The session that is kept; None if there is none, or it cannot be read."""
        try:
            return cls.model_validate_json((folder / _SESSION).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def write(self, folder: Path) -> None:
        write_private(folder / _SESSION, self.model_dump_json() + "\n")

    @staticmethod
    def forget(folder: Path) -> None:
        (folder / _SESSION).unlink(missing_ok=True)


class PaneStatus(BaseModel):
    """What the program in the pane does now."""

    model_config = ConfigDict(frozen=True)

    life: str
    state: AgentState
    rule: str
    """What shows it: the request that is not answered yet."""
    question: Question | None = None
    resumed: bool = False
    """The program went on with the session of a former one."""
    is_changed: bool = False
    """A choice that lasts was taken, or the mode is not the one that the session began with."""


class Given(StrEnum):
    """What became of a prompt that the pane's program was given."""

    TAKEN = "taken"
    """It is the agent's, now or since an earlier call with the same id."""
    BUSY = "busy"
    GONE = "gone"
    """It was meant for a program that has ended."""


class PaneDoor:
    """The socket, as the agent's worker uses it. Every call raises :class:`PaneAway` if no program answers."""

    def __init__(self, folder: Path) -> None:
        self.path = require_short(folder / _SOCKET)

    def status(self) -> PaneStatus:
        return self._call(PaneStatus.model_validate, "status")

    def prompt(self, life: str, number: str, text: str) -> Given:
        """Give the agent a prompt. The same number twice is one prompt."""
        return self._call(Given, "prompt", life=life, number=number, text=text)

    def permit(self, question: Question, *, allowed: bool) -> Answered:
        """Allow or deny, once, what the question is about."""
        return self._call(Answered, "permit", question=question.model_dump(), allowed=allowed)

    def choose(self, question: Question, number: int) -> bool:
        """Take this choice of the question. False if it is not asked."""
        return self._call(bool, "choose", question=question.model_dump(), number=number)

    def cancel(self) -> None:
        """Have the agent end its turn."""
        self._call(bool, "cancel")

    def _call(self, understand: Callable[[Any], Reply], order: str, **values: Any) -> Reply:
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(_SECONDS)
                line.connect(str(self.path))
                line.sendall(json.dumps({"order": order, **values}).encode() + b"\n")
                with line.makefile("rb") as answers:
                    return understand(json.loads(answers.readline())["reply"])
        except (OSError, ValueError, KeyError) as error:
            raise PaneAway(f"the program in the pane does not answer at {self.path}: {error}") from error
