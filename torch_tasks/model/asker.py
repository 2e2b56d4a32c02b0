"""Who asked for something, as it is recorded with what was asked for."""

from __future__ import annotations

from typing import Self

from torch_tasks.caller import Caller, CallerKind, caller
from torch_tasks.model.fields import Model


class Asker(Model):
    """The part of a caller from which its rights follow, wherever and whenever that is looked at again."""

    kind: CallerKind
    name: str
    role: str | None = None
    node: str | None = None
    """The machine on which it asked."""

    @classmethod
    def of(cls, who: Caller, node: str | None = None) -> Self:
        return cls(kind=who.kind, name=who.name, role=who.role, node=node)

    @classmethod
    def now(cls, node: str | None = None) -> Self:
        """Who asks at this moment."""
        return cls.of(caller(), node)

    @property
    def caller(self) -> Caller:
        if self.kind is CallerKind.AGENT:
            return Caller(self.name, role=self.role)
        return Caller(other=self.kind, role=self.role, own_name=self.name)

    @property
    def key(self) -> str:
        """Tells it from every other one, whatever kinds have the same name."""
        return f"{self.kind}:{self.name}"
