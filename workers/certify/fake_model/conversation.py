"""What a request says, whichever wire format it came in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Who: TypeAlias = Literal["user", "added", "assistant", "call", "result"]
"""The person, the CLI in the person's name, the model, the model's tool call, the tool."""


@dataclass(frozen=True)
class Item:
    """One thing that was said."""

    who: Who
    text: str


@dataclass
class Conversation:
    """A request's content. ``schema`` is the JSON schema that the answer shall have, if it is a structured one."""

    api: str
    model: str
    stream: bool
    system: str = ""
    items: list[Item] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    schema: dict[str, Any] | None = None

    def texts(self, who: Who) -> list[str]:
        """All that this one said, oldest first."""
        return [item.text for item in self.items if item.who == who]

    @property
    def prompt(self) -> str:
        """The person's last text, exactly as it came."""
        return (self.texts("user") or [""])[-1]

    @property
    def added(self) -> list[str]:
        """What the CLI put beside the person's last words, or beside the tools' last results."""
        end = max((place for place, item in enumerate(self.items) if item.who in ("assistant", "call")), default=-1)
        return [item.text for item in self.items[end + 1 :] if item.who == "added"]

    @property
    def continues(self) -> bool:
        """It brings tool results, or nothing new; no words of the person."""
        said = [item for item in self.items if item.who != "added"]
        return not said or said[-1].who != "user"

    @property
    def characters(self) -> int:
        """How much was said in all."""
        return len(self.system) + sum(len(item.text) for item in self.items)
