"""What is open in a session of the Agent Client Protocol: a turn, and the questions that the program asks in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from acp.schema import PermissionOption

from torch_tasks.model.task import Question


@dataclass
class OpenQuestion:
    """A question that the program waits for, and what each of its choices answers."""

    question: Question
    options: Sequence[PermissionOption]
    answer: asyncio.Future[int | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """The index of the choice; None if the turn was cancelled."""

    def once(self, *, allowed: bool) -> int | None:
        """The choice that allows or denies this one time."""
        kind = "allow_once" if allowed else "reject_once"
        return next((index for index, option in enumerate(self.options) if option.kind == kind), None)


def lasting_among(options: Sequence[PermissionOption]) -> tuple[int, ...]:
    """The numbers of the choices that change something for later."""
    return tuple(number for number, option in enumerate(options, 1) if option.kind in ("allow_always", "reject_always"))


@dataclass
class OpenTurn:
    """What is known of the running turn."""

    text: str
    accepted: bool = False
    answer: str = ""
    """What the agent said since its last tool call."""
    before: str = ""
    """What it said before that."""

    def begin_tool(self) -> None:
        """What was said before a tool is used is no part of the answer."""
        if self.answer.strip():
            self.before, self.answer = self.answer.strip("\n"), ""

    @property
    def whole_answer(self) -> str:
        return self.answer.strip("\n") or self.before
