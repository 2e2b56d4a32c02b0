"""The ways in which a person is told of what needs one, as they are declared."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, SecretStr, model_validator

from torch_tasks.model.fields import Model

PUSH = "push"


class NotifyChannel(Model):
    """One way, and how long a person has before the next one is taken."""

    push: bool = Field(False, description="The browsers that asked for it.")
    command: str | None = Field(None, description="A shell command.")
    target: SecretStr | None = Field(None, description="An address of apprise: ntfy, Slack, mail and more.")
    name: str = Field("", pattern=r"^[A-Za-z0-9_.-]*$", description="What logs call it; told apart by it.")
    patience_seconds: float = Field(300.0, ge=0, allow_inf_nan=False, description="How long until the next one.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """Without a name it is called what it is."""
        if isinstance(given, dict) and not given.get("name"):
            return {**given, "name": next((one for one in (PUSH, "command", "target") if given.get(one)), "")}
        return given

    @model_validator(mode="after")
    def _is_one_way(self) -> Self:
        if (self.push, self.command is not None, self.target is not None).count(True) != 1:
            raise ValueError("a channel is one of: push = true, command, target")
        if self.push != (self.name == PUSH):
            raise ValueError(f"the channel {PUSH!r}, and no other, is called that")
        return self


def each_name_once(channels: tuple[NotifyChannel, ...]) -> tuple[NotifyChannel, ...]:
    names = [one.name for one in channels]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two channels are called {', '.join(twice)}: give each a name of its own")
    return channels
