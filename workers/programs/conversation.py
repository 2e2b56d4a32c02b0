"""The conversation of a program: how a command is tied to it, and what it holds of a task that was cut off."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from torch_tasks.workers.programs.config import KindConfig
from torch_tasks.workers.programs.kind import AgentKind

GO_ON = """\
The program in which you worked on this {what} was killed in the middle of it, and a new one has your conversation.
Go on with the {what} where you were. Look first at what is done already, and do nothing twice.
Its words, should you need them, are in {prompt}."""
"""The prompt for a program that takes up such a task or message."""


@dataclass(frozen=True)
class KeptPrompt:
    """A prompt in a conversation whose program was killed."""

    answer: str | None = None
    """The whole answer to it; None if there is none."""


def new_conversation(config: KindConfig) -> str | None:
    """The id under which a program begins a conversation; None if it gives it one itself."""
    return str(uuid.uuid4()) if any("{conversation}" in word for word in config.conversation.begin) else None


def conversation_words(kind: AgentKind, *, resumes: bool) -> list[str]:
    """The words at the end of the command that begin the kind's given conversation, or go on with it."""
    values = {"{conversation}": kind.given_conversation or "", "{folder}": str(kind.own)}
    words = kind.config.conversation.resume if resumes else kind.config.conversation.begin
    return [re.sub("|".join(values), lambda found: values[found[0]], word) for word in words]
