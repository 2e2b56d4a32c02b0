"""Asking for help: one able agent after the other until one accepts, at last the manager."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress

from pydantic import Field

from torch_tasks import keys
from torch_tasks.caller import caller
from torch_tasks.communication.messenger import Messenger
from torch_tasks.communication.policy import policy
from torch_tasks.errors import InboxFull, MessageRefused, NobodyHelps, NotDelivered, Unreadable
from torch_tasks.fleet import fleet
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.fields import AgentId, Model, TaskId
from torch_tasks.model.message import MessageKind, MessageRecord, id_for
from torch_tasks.model.reader import read_model
from torch_tasks.model.traceparent import PlaceInTrace

_DECLINE = "decline"
_NONE_ABLE = "no other able agent is online; 'torch-tasks agents' lists all agents"
_KEPT_SECONDS = 86_400


class HelpWanted(Model):
    """What is asked for."""

    id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex)
    text: str
    skills: tuple[str, ...] = ()
    role: str | None = None
    expires: float = 600.0
    """How many seconds each agent has to answer."""
    traceparent: PlaceInTrace = None
    """Under which span it is asked for, as the W3C writes it."""


class HelpProgress(Model):
    """How far a request for help is."""

    id: TaskId
    asked: AgentId | None = None
    """Who has not answered yet."""
    answers: tuple[str, ...] = ()
    """What the agents before have said."""
    reply: MessageRecord | None = None
    """The reply of the agent that accepted."""


class _Round(Model):
    """The agents in the order in which they are asked, and what those that do not help have answered."""

    peers: tuple[AgentId, ...]
    answers: tuple[str, ...] = ()


class HelpSearch:
    """One request for help. Any process goes on with it where the one before left off."""

    def __init__(self, wanted: HelpWanted, sender: str | None = None) -> None:
        self._wanted = wanted
        self._messenger = Messenger(sender)
        self._key = keys.help_wanted(self._messenger.sender, wanted.id)

    def go_on(self, seconds: float) -> HelpProgress:
        """Ask one agent after the other, for so many seconds; :class:`NobodyHelps` when the last has not accepted.

        Each has ``expires`` seconds. A reply that begins with "decline" declines; any other one is the help.
        """
        deadline = time.monotonic() + seconds
        state = self._round()
        while len(state.answers) < len(state.peers):
            peer = state.peers[len(state.answers)]
            try:
                reply = self._ask(peer, deadline)
            except (NotDelivered, MessageRefused, InboxFull) as error:
                state = self._answered(state, f"{peer}: {error}")
                continue
            if reply is None and self._left(peer) > 0:
                return HelpProgress(id=self._wanted.id, asked=peer, answers=state.answers)
            if reply is None:
                state = self._answered(state, f"{peer}: no reply in time")
                continue
            said = reply.message
            if not said.message.strip().casefold().startswith(_DECLINE):
                return HelpProgress(id=self._wanted.id, answers=state.answers, reply=reply)
            state = self._answered(state, f"{said.sender}: {said.message.strip()}")
            if said.sender != peer:
                break  # the policy sent the question to the manager, who has decided
        raise NobodyHelps(
            f"no agent accepted to help {self._messenger.sender}: {'; '.join(state.answers) or _NONE_ABLE}"
        )

    def _ask(self, peer: str, deadline: float) -> MessageRecord | None:
        wanted, question = self._wanted, id_for(self._wanted.id, peer)
        if fleet().inboxes.records([question])[0] is None:
            within = describe_duration(wanted.expires)
            text = f"{wanted.text}  # reply with 'accept: …' or 'decline: why' within {within}"
            self._messenger.send(
                peer,
                text,
                kind=MessageKind.QUESTION,
                expires=wanted.expires,
                id=question,
                traceparent=wanted.traceparent or caller().span,
            )
        left = max(0.0, min(deadline - time.monotonic(), self._left(peer)))
        return self._messenger.await_reply(question, left)

    def _left(self, peer: str) -> float:
        """How many seconds the agent still has to answer."""
        record = fleet().inboxes.records([id_for(self._wanted.id, peer)])[0]
        if record is None or record.expires_at is None:
            return self._wanted.expires
        seconds, micros = fleet().client.time()
        return record.expires_at.timestamp() - (seconds + micros / 1e6)

    def _round(self) -> _Round:
        with suppress(Unreadable):
            if known := fleet().client.get(self._key):
                return read_model(_Round, str(known))
        begun = _Round(peers=tuple(_peers(self._messenger.sender, self._wanted.role, self._wanted.skills)))
        self._keep(begun)
        return begun

    def _answered(self, state: _Round, answer: str) -> _Round:
        state = state.model_copy(update={"answers": (*state.answers, answer)})
        self._keep(state)
        return state

    def _keep(self, state: _Round) -> None:
        fleet().client.set(self._key, state.model_dump_json(), ex=_KEPT_SECONDS)


def _peers(sender: str, role: str | None, skills: Iterable[str]) -> Iterator[str]:
    """The agents to ask, in this order."""
    registry, manager = fleet().registry, policy().hub.manager
    able = [info for info in registry.find_available_agents(role, skills) if info.role != manager]
    managers = registry.find_available_agents(manager)
    return (info.agent_id for info in (*able, *managers) if info.agent_id != sender)
