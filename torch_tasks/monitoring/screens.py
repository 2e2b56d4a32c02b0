"""Watching an agent's screen from elsewhere: its worker publishes it on request."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError
from redis.client import PubSub

from torch_tasks import keys
from torch_tasks.broker.connection import broker_errors
from torch_tasks.errors import AgentUnavailable, InvalidMessage, NotTakenOver, PaneTaken
from torch_tasks.fleet import fleet
from torch_tasks.model.drawn_screen import DrawnScreen
from torch_tasks.model.fields import KeptText, Model
from torch_tasks.system.loops import Loop

LOOK_SECONDS = 0.5
"""How often the worker looks at the pane."""
WATCHED_SECONDS = 6.0
"""How long the worker publishes after a request; a watcher repeats it in time."""
PIECE_BYTES = 64 << 10
"""Only the end of a larger screen is shown."""
DRAWN_BYTES = 512 << 10
"""A screen whose colours take more is shown without them."""
_ANSWER_SECONDS = 20.0
#: After how long a worker is asked again that has not answered.
_AGAIN_SECONDS = 2.0
_REPLY_SECONDS = 5.0
_REFUSALS = {one.__name__: one for one in (PaneTaken, NotTakenOver, InvalidMessage)}
_READ_SECONDS = 0.2


class ScreenView(Model):
    """What an agent's terminal shows at one moment."""

    text: KeptText
    mark: str
    """Differs from that of every other text."""


class StateEvidence(Model):
    """What one source says of the state of an agent."""

    source: str
    evidence: KeptText


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


def scrollback(agent_id: str, lines: int, skipped: int) -> DrawnScreen:
    """Rows from above the agent's screen, without the ``skipped`` ones right above it."""
    from torch_tasks.app import SCROLLBACK

    return DrawnScreen.model_validate(_reply(agent_id, SCROLLBACK, {"lines": lines, "skipped": skipped}))


def explain(agent_id: str) -> list[StateEvidence]:
    """What the agent is doing, by each source, the decisive one first."""
    from torch_tasks.app import EXPLAIN

    found = _reply(agent_id, EXPLAIN)["found"]
    return [StateEvidence(source=str(source), evidence=str(evidence)) for source, evidence in found]


Act = Literal["take", "give back", "type", "paste", "stay"]


def at_terminal(agent_id: str, act: Act, text: str = "", keys: Sequence[str] = ()) -> str | None:
    """Have a person's act done at an agent's terminal; returns who has it taken over then."""
    from torch_tasks.app import TAKEOVER

    return _reply(agent_id, TAKEOVER, {"act": act, "text": text, "keys": list(keys)})["person"] or None


class ScreenFeed:
    """The drawn screens of the agents that somebody watches: each is read once, and only as long as it is watched."""

    def __init__(self, on_screen: Callable[[str, DrawnScreen], None], on_trouble: Callable[[str, str], None]) -> None:
        """Both are called from the feed's thread; ``on_trouble`` with why a screen is not current, or nothing."""
        self._on_screen, self._on_trouble = on_screen, on_trouble
        self._wanted: frozenset[str] = frozenset()
        self._changing = threading.Lock()
        self._loop: Loop | None = None
        self._notices: PubSub | None = None
        self._heard: dict[str, str] = {}
        self._asked: frozenset[str] = frozenset()
        self._ask_at = 0.0

    def watch(self, agents: frozenset[str]) -> None:
        """Read the screens of these agents from now on, and of no others."""
        with self._changing:
            self._wanted = agents
            if agents and self._loop is None:
                self._loop = Loop("watched screens", self._read, until=self._is_over, longest_retry_seconds=2.0)
                self._loop.start()

    def _is_over(self) -> bool:
        with self._changing:
            if self._wanted:
                return False
            self._close()
            self._loop = None
            return True

    def _read(self) -> None:
        wanted = self._wanted
        try:
            with broker_errors():
                notices = self._listen(wanted)
                if wanted - self._asked or time.monotonic() >= self._ask_at:
                    self._ask(wanted)
                notice = notices.get_message(timeout=_READ_SECONDS)
        except Exception:
            self._close()
            for agent in wanted:
                self._on_trouble(agent, "the broker is away: this is what was seen last")
            raise
        if notice:
            self._take(notice)

    def _listen(self, wanted: frozenset[str]) -> PubSub:
        """Hear of these screens, and of no others."""
        if self._notices is None:
            self._notices = fleet().client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        channels = {keys.drawn_screen(agent): agent for agent in wanted}
        if new := channels.keys() - self._heard.keys():
            self._notices.subscribe(*new)
        if old := self._heard.keys() - channels.keys():
            self._notices.unsubscribe(*old)
        self._heard = channels
        return self._notices

    def _ask(self, wanted: frozenset[str]) -> None:
        """Have their workers publish them; one that comes back is asked again soon."""
        infos = {info.agent_id: info for info in fleet().registry.get_agents(wanted)}
        online = [f"{info.agent_id}@{info.node}" for info in infos.values() if info.online]
        if online:
            from torch_tasks.app import SHOW, app

            app.control.broadcast(SHOW, {"drawn": True}, destination=online)
        for agent in wanted:
            info = infos.get(agent)
            gone = f"there is no agent {agent}" if info is None else f"{agent} is offline: this is what was seen last"
            self._on_trouble(agent, "" if info and info.online else gone)
        self._asked, self._ask_at = wanted, time.monotonic() + WATCHED_SECONDS / 2

    def _take(self, notice: Mapping[str, Any]) -> None:
        agent = self._heard.get(str(notice["channel"]))
        if agent is None:
            return
        try:
            self._on_screen(agent, DrawnScreen.model_validate_json(notice["data"]))
        except ValidationError as error:
            self._on_trouble(agent, f"what was published as its screen is none: {error.errors()[0]['msg']}")

    def _close(self) -> None:
        notices, self._notices = self._notices, None
        self._heard, self._asked = {}, frozenset()
        if notices is not None:
            notices.close()


def _mark_of(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _ask(agent_id: str) -> None:
    """Have the agent's worker publish its screen; one that is starting hears nothing yet, so it is asked again."""
    from torch_tasks.app import SHOW, app

    until = time.monotonic() + _ANSWER_SECONDS
    while True:
        info = fleet().registry.get_agent(agent_id)  # it may live on another machine by now
        worker = [f"{info.agent_id}@{info.node}"]
        if app.control.broadcast(SHOW, destination=worker, reply=True, timeout=_AGAIN_SECONDS, limit=1):
            return
        if time.monotonic() >= until or not info.online:
            raise _silent(info.agent_id, info.node)


def _reply(agent_id: str, command: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the agent's worker replies to this command."""
    from torch_tasks.app import app

    info = fleet().registry.get_agent(agent_id)
    with broker_errors(), app.connection_for_write() as connection:
        answers = app.control.broadcast(
            command,
            arguments,
            destination=[f"{info.agent_id}@{info.node}"],
            reply=True,
            timeout=_REPLY_SECONDS,
            limit=1,
            connection=connection,
        )
    reply: dict[str, Any] | None = next((reply for answer in answers or () for reply in answer.values()), None)
    if reply is None:
        raise _silent(info.agent_id, info.node)
    if "error" in reply:
        kind = _REFUSALS.get(str(reply.get("class")), AgentUnavailable)
        raise kind(f"agent {info.agent_id}: {reply['error']}")
    return reply


def _silent(agent_id: str, node: str) -> AgentUnavailable:
    return AgentUnavailable(
        f"the worker of {agent_id} on {node} does not answer; 'torch-tasks agents' shows whether it is online"
    )
