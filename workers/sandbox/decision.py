"""Whether an agent's program is boxed: the agent's declaration decides, else its kind's file, else the machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from torch_tasks.errors import SandboxRefused
from torch_tasks.model.sandbox import SandboxMode

Source = Literal["agent", "kind", "machine"]
_BOXED = "boxed"


@dataclass(frozen=True)
class Boxing:
    """Whether a program is boxed, and if not, why."""

    is_boxed: bool
    why: str = ""

    @property
    def in_words(self) -> str:
        return _BOXED if self.is_boxed else f"not boxed: {self.why}"

    @classmethod
    def read(cls, words: str) -> Self:
        """What :attr:`in_words` said."""
        return cls(is_boxed=True) if words == _BOXED else cls(is_boxed=False, why=words.removeprefix("not boxed: "))


def decide(
    agent_id: str,
    *,
    agent: SandboxMode | None,
    kind: SandboxMode | None,
    machine: SandboxMode,
    why_not: Callable[[], str | None],
) -> Boxing:
    """Decide; :class:`SandboxRefused` if a box was demanded and cannot be had. ``why_not`` tries whether it can."""
    mode, whose = _wanted(agent, kind, machine)
    if mode == "never":
        if machine == "always":
            raise SandboxRefused(
                f"agent {agent_id} cannot start: sandbox = never ({_SAID[whose]}), and TORCH_SANDBOX = always "
                "on this machine; change one of them"
            )
        return Boxing(is_boxed=False, why=f"sandbox = never ({_SAID[whose]})")
    why = why_not()
    if why is None:
        return Boxing(is_boxed=True)
    if "always" in (mode, machine):
        whose = whose if mode == "always" else "machine"
        raise SandboxRefused(
            f"agent {agent_id} cannot start: it must be boxed (sandbox = always, {_SAID[whose]}), and cannot be: {why}"
        )
    return Boxing(is_boxed=False, why=why)


_SAID = {"agent": "its declaration", "kind": "its kind's file", "machine": "TORCH_SANDBOX"}


def _wanted(agent: SandboxMode | None, kind: SandboxMode | None, machine: SandboxMode) -> tuple[SandboxMode, Source]:
    if agent is not None:
        return agent, "agent"
    return (kind, "kind") if kind is not None else (machine, "machine")
