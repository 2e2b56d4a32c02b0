"""Asking for help: one able peer after the other until one accepts, at last the manager."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch_tasks.communication.orchestrator import NovaOrchestrator
from torch_tasks.communication.policy import policy
from torch_tasks.errors import InboxFull, MessageRefused, NobodyHelps, NoReply, NotDelivered
from torch_tasks.fleet import fleet
from torch_tasks.model.message import MessageRecord

_DECLINE = "decline"


def ask_for_help(
    text: str, skills: Iterable[str] = (), *, role: str | None = None, expires: float = 600.0, sender: str | None = None
) -> MessageRecord:
    """The reply of the first peer that accepts; free ones with all of these skills are asked first.

    Each has ``expires`` seconds. A reply that begins with "decline" declines, any other one is the help. Who declines
    or lets the time pass is followed by the next able one, the last by a manager; then :class:`NobodyHelps`.
    """
    nova, answers = NovaOrchestrator(sender), []
    question = f"{text}  # reply with 'accept: …' or 'decline: why' within {expires:g} s"
    for peer in _peers(nova.sender, role, list(skills)):
        try:
            reply = nova.ask(peer, question, expires, expires=expires)
        except (NoReply, NotDelivered, MessageRefused, InboxFull) as error:
            answers.append(f"{peer}: {'no reply in time' if isinstance(error, NoReply) else error}")
            continue
        if not reply.message.message.strip().casefold().startswith(_DECLINE):
            return reply
        answers.append(f"{reply.message.sender}: {reply.message.message.strip()}")
        if reply.message.sender != peer:
            break  # the policy had the manager decide for all
    raise NobodyHelps(f"nobody helps {nova.sender}: {'; '.join(answers) or 'no other able agent is online'}")


def _peers(sender: str, role: str | None, skills: list[str]) -> Iterator[str]:
    """Whom to ask, in this order; who is able is looked up once."""
    registry, manager = fleet().registry, policy().hub.manager
    able = [info for info in registry.find_available_agents(role, skills) if info.role != manager]
    managers = registry.find_available_agents(manager)
    return (info.agent_id for info in (*able, *managers) if info.agent_id != sender)
