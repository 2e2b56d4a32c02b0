"""Watching an agent's screen from another machine: its worker publishes it on request."""

from __future__ import annotations

import hashlib
import time

from torch_tasks import keys
from torch_tasks.app import SHOW, app
from torch_tasks.broker.connection import broker_errors
from torch_tasks.errors import AgentUnavailable
from torch_tasks.fleet import fleet
from torch_tasks.model.fields import KeptText, Model

LOOK_SECONDS = 0.5
"""How often the worker looks at the pane."""
WATCHED_SECONDS = 6.0
"""How long the worker publishes after a request; a watcher repeats it in time."""
PIECE_BYTES = 64 << 10
"""Only the end of a larger screen is shown."""
_ANSWER_SECONDS = 20.0
#: After how long a worker is asked again that has not answered.
_AGAIN_SECONDS = 2.0


class ScreenView(Model):
    """What an agent's terminal shows at one moment."""

    text: KeptText
    mark: str
    """Differs from that of every other text."""


def next_screen(agent_id: str, mark: str, seconds: float) -> ScreenView | None:
    """The agent's screen as soon as it has another mark than this; None if it has not within ``seconds``.

    Raises :class:`AgentUnavailable` when its worker does not answer.
    """
    deadline, ask_at = time.monotonic() + seconds, 0.0
    with broker_errors(), fleet().client.pubsub(ignore_subscribe_messages=True) as notices:  # type: ignore[no-untyped-call]
        notices.subscribe(keys.screen(fleet().registry.get_agent(agent_id).agent_id))
        while True:
            if time.monotonic() >= ask_at:
                _ask(agent_id)
                ask_at = time.monotonic() + WATCHED_SECONDS / 2
            notice = notices.get_message(timeout=LOOK_SECONDS)
            if notice and (seen := _mark_of(text := str(notice["data"]))) != mark:
                return ScreenView(text=text, mark=seen)
            if time.monotonic() >= deadline:
                return None


def _mark_of(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _ask(agent_id: str) -> None:
    """Have the agent's worker publish its screen; one that is starting hears nothing yet, so it is asked again."""
    until = time.monotonic() + _ANSWER_SECONDS
    while True:
        info = fleet().registry.get_agent(agent_id)  # it may live on another machine by now
        worker = [f"{info.agent_id}@{info.node}"]
        if app.control.broadcast(SHOW, destination=worker, reply=True, timeout=_AGAIN_SECONDS, limit=1):
            return
        if time.monotonic() >= until or not info.online:
            raise AgentUnavailable(
                f"the worker of {agent_id} on {info.node} does not answer; "
                "'torch-tasks agents' shows whether it is online"
            )
