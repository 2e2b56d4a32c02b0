"""Asking for help: one able agent after the other until one accepts, at last the manager."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch_tasks.communication.orchestrator import NovaOrchestrator
from torch_tasks.communication.policy import policy
from torch_tasks.errors import InboxFull, MessageRefused, NobodyHelps, NoReply, NotDelivered
from torch_tasks.fleet import fleet
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.message import MessageRecord

_DECLINE = "decline"
_NONE_ABLE = "no other able agent is online; 'torch-tasks agents' lists all agents"


def ask_for_help(
    text: str, skills: Iterable[str] = (), *, role: str | None = None, expires: float = 600.0, sender: str | None = None
) -> MessageRecord:
    """Ask the able agents, the best free one first and a manager last, until one accepts; returns its reply.

    Each has ``expires`` seconds. A reply that begins with "decline" declines; any other one is the help.
    :class:`NobodyHelps` if none accepts.
    """
    nova, answers = NovaOrchestrator(sender), []
    question = f"{text}  # reply with 'accept: …' or 'decline: why' within {describe_duration(expires)}"
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
            break  # the policy sent the question to the manager, who has decided
    raise NobodyHelps(f"no agent accepted to help {nova.sender}: {'; '.join(answers) or _NONE_ABLE}")


def _peers(sender: str, role: str | None, skills: list[str]) -> Iterator[str]:
    """The agents to ask, in this order."""
    registry, manager = fleet().registry, policy().hub.manager
    able = [info for info in registry.find_available_agents(role, skills) if info.role != manager]
    managers = registry.find_available_agents(manager)
    return (info.agent_id for info in (*able, *managers) if info.agent_id != sender)
