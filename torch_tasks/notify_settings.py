"""What a user may set of how a person is told of what needs one."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

from torch_tasks.model.notify_channel import NotifyChannel, each_name_once


class NotifySettings(BaseSettings):
    """The part of the settings that is about it; see docs/notify.md."""

    notify: Annotated[tuple[NotifyChannel, ...], AfterValidator(each_name_once)] = Field(
        (),
        description="How a person is told of what needs one: `[[notify]]` tables in torch.toml, one channel after the "
        "other until somebody has seen it (push, command or target; name, patience_seconds): see docs/notify.md.",
    )
    notify_command: str | None = Field(
        None, description="A shell command as the last of these channels; without others, push comes before it."
    )
    push_services: tuple[str, ...] = Field(
        (),
        description='Push services besides those of the internet, as `["push.example.lan:8443"]`: a browser names its '
        "own, and the server sends to no other address inside.",
    )
    push_contact: str | None = Field(
        None,
        pattern="^(mailto:|https://)",
        description="Whom a push service may write to about this server, as `mailto:ops@example.com`. Unset: its "
        "public address.",
    )

    @cached_property
    def channels(self) -> tuple[NotifyChannel, ...]:
        """The ways in which a person is told, in their order."""
        given = self.notify or (NotifyChannel(push=True),)
        last = NotifyChannel(command=self.notify_command) if self.notify_command else None
        return each_name_once((*given, last) if last else given)
