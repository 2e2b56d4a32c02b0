"""The policy of conversation in ``policy.toml``: which agents may send which messages to which others."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Annotated

from pydantic import ConfigDict, Field

from torch_tasks.caller import OPERATOR
from torch_tasks.config_files import config_file
from torch_tasks.errors import InvalidMessage, MessageRefused
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import AgentId, Role
from torch_tasks.model.message import Message, MessageKind, Urgency
from torch_tasks.security.rules import POLICY_FILE, PolicyPart, RightsFile
from torch_tasks.toml_config import read_config


class Hub(PolicyPart):
    """Hub and spoke: agents of these roles write to each other through their manager."""

    roles: tuple[Role, ...] = ("developer",)
    manager: Role = "project-manager"
    allowed: tuple[tuple[AgentId, AgentId], ...] = ()
    """Pairs of agents or roles that may still write to each other directly."""


_SHELL = "shell"


def manager_of(agents: Iterable[AgentInfo], role: str, agent_id: str = "") -> AgentInfo | None:
    """The manager to write to about this agent, online if possible; never a shell, which would run the message."""
    managers = [info for info in agents if info.role == role and info.agent_id != agent_id and info.kind != _SHELL]
    return min(managers, key=lambda info: (not info.online, info.agent_id), default=None)


class Policy(RightsFile):
    """All of policy.toml. What it does not say of conversation is as here, of rights as in Torch's own file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    hub: Hub = Hub()
    exchanges: int = Field(3, ge=0)
    """The most exchanges of question and answer under one correlation id; 0: no limit."""
    blocked_minutes: float = Field(10.0, ge=0, allow_inf_nan=False)
    """The manager gets a message about an agent that is blocked for longer; 0: never."""
    followup_minutes: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (5.0, 15.0, 30.0, 60.0)
    """The minutes between two follow-ups by the manager on a running task that is expected to take up to half an hour,
    two hours, eight hours, or longer; empty: no follow-ups."""
    locked: tuple[AgentId, ...] = ()
    """Agents that get no messages."""
    fields: dict[MessageKind, tuple[str, ...]] = Field(default_factory=dict)
    """The fields, each a line ``name: text``, that a message of a kind must have."""

    def check(self, message: Message) -> None:
        """Raise :class:`MessageRefused` or :class:`InvalidMessage` if the message must not be sent."""
        if message.target in self.locked:
            raise MessageRefused(
                f"{message.target} is locked and gets no messages; to unlock it, take it off 'locked' in policy.toml"
            )
        if not self.enabled:
            return
        if message.kind is MessageKind.ACK and not message.reply_to:
            raise InvalidMessage("an ack must say what it acknowledges: give the id of that message (reply_to)")
        lines = [line.strip().casefold() for line in message.message.splitlines()]
        missing = [
            field
            for field in self.fields.get(message.kind, ())
            if not any(line.startswith(f"{field.casefold()}:") and line[len(field) + 1 :].strip() for line in lines)
        ]
        if missing:
            wanted = ", ".join(f"'{field}: …'" for field in missing)
            raise InvalidMessage(f"a message of the kind {message.kind} must have a line {wanted} (policy.toml)")

    def detour(
        self, message: Message, sender: AgentInfo | None, target: AgentInfo | None, exchanges: int
    ) -> str | None:
        """Why the message goes to the manager instead; None if it goes to its target."""
        if not self.enabled or message.priority is Urgency.EMERGENCY or target is None:
            return None
        if message.kind is MessageKind.CHECKIN:  # a scheduled note is no conversation
            return None
        if target.role == self.hub.manager or (sender and sender.role == self.hub.manager):
            return None
        if sender and {sender.role, target.role} <= set(self.hub.roles) and not self._may(sender, target):
            return f"{sender.role}s speak to {target.role}s through their {self.hub.manager} (policy.toml)"
        if sender and self.exchanges and exchanges >= 2 * self.exchanges and message.sender != OPERATOR:
            return f"{self.exchanges} exchanges on this matter are enough: the {self.hub.manager} decides (policy.toml)"
        return None

    def _may(self, sender: AgentInfo, target: AgentInfo) -> bool:
        names = ({sender.agent_id, sender.role}, {target.agent_id, target.role})
        return any(one in names[0] and other in names[1] for one, other in self.hub.allowed)


@cache
def policy() -> Policy:
    return read_config(config_file(POLICY_FILE), Policy)
