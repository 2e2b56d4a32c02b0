"""Watching an agent's screen from another machine: its worker publishes it on request."""

from __future__ import annotations

import time
from collections.abc import Generator

from torch_tasks import keys
from torch_tasks.app import SHOW, app
from torch_tasks.broker.connection import broker_errors
from torch_tasks.errors import AgentUnavailable
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo

LOOK_SECONDS = 0.5
"""How often the worker looks at the pane."""
WATCHED_SECONDS = 6.0
"""How long the worker publishes after a request; a watcher repeats it in time."""
PIECE_BYTES = 64 << 10
"""Only the end of a larger screen is shown."""
_ANSWER_SECONDS = 20.0
#: After how long a worker is asked again that has not answered.
_AGAIN_SECONDS = 2.0


def screens_of(info: AgentInfo) -> Generator[str, None, None]:
    """The agent's screen now and after each change; :class:`AgentUnavailable` when its worker does not answer."""
    shared = fleet()
    with broker_errors(), shared.client.pubsub(ignore_subscribe_messages=True) as notices:  # type: ignore[no-untyped-call]
        notices.subscribe(keys.screen(info.agent_id))
        asked_at = -WATCHED_SECONDS
        while True:
            if time.monotonic() - asked_at > WATCHED_SECONDS / 2:
                _ask(info.agent_id)
                asked_at = time.monotonic()
            notice = notices.get_message(timeout=LOOK_SECONDS)
            if notice:
                yield str(notice["data"])


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
