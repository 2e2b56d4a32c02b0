"""What an agent's program asks while it works on a message, with no task whose thread would look after it."""

from __future__ import annotations

import logging
import time

from torch_tasks.workers.host.letters import Letter
from torch_tasks.workers.host.workplace import Workplace
from torch_tasks.workers.programs.questions import decide_permission

log = logging.getLogger(__name__)

#: How long a program may take to show that it got an answer.
_AGAIN_SECONDS = 3.0


class Attending:
    """Looks after one agent between its tasks."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._answered_at = 0.0

    def look(self, letter: Letter) -> None:
        """Tell the fleet what the program does, and answer what the kind's policy answers."""
        kind, pane = self._place.kind, self._place.terminal.pane
        reading = kind.read(pane)
        if reading.state is not self._place.presence.info.state:
            self._place.presence.show(reading.state)
        question = kind.message_question(pane, letter)
        if question is None or time.monotonic() - self._answered_at < _AGAIN_SECONDS:
            return
        if decision := decide_permission(question, None, kind.config.permissions):
            allowed, why = decision
            if kind.answer(pane, question, "allow" if allowed else "deny"):
                self._answered_at = time.monotonic()
                log.info("%s: %s %s", kind.agent_id, "allowed" if allowed else "denied", f"by {why}")
