"""What the fake model does for a prompt, one step after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True)
class Text:
    """Say something, in chunks of so many characters, with a pause after each."""

    kind: ClassVar[str] = "text"
    text: str
    chunk: int = 24
    pause: float = 0.0

    def chunks(self) -> list[str]:
        """The text as it is streamed."""
        return [self.text[start : start + self.chunk] for start in range(0, len(self.text), self.chunk)]


@dataclass(frozen=True)
class Call:
    """Call a tool; calls that follow each other are made at once, and the model goes on when their results come.

    Where the program's tools are in namespaces, as Codex's may be, the name is ``namespace.tool``.
    """

    kind: ClassVar[str] = "call"
    name: str
    input: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fail:
    """Fail as the real service does: ``rate_limit``, ``usage_limit``, ``quota``, ``overloaded``, ``unauthorized``,
    ``too_long``, ``server_error``. After a text it fails inside the stream. The client's retry gets the next steps.

    ``resets_in`` is in seconds; ``message`` replaces the service's own words.
    """

    kind: ClassVar[str] = "fail"
    error: str
    retry_after: int = 1
    resets_in: int = 3600
    message: str | None = None


@dataclass(frozen=True)
class Delay:
    """Do nothing for so many seconds."""

    kind: ClassVar[str] = "delay"
    seconds: float


@dataclass(frozen=True)
class Await:
    """Do nothing until this name is released."""

    kind: ClassVar[str] = "await"
    name: str


@dataclass(frozen=True)
class Drop:
    """Cut the connection. The client's retry gets the next steps."""

    kind: ClassVar[str] = "drop"


@dataclass(frozen=True)
class Tokens:
    """Report these numbers of tokens, instead of those that the texts come to."""

    kind: ClassVar[str] = "tokens"
    input_tokens: int
    output_tokens: int = 10


Step: TypeAlias = Text | Call | Fail | Delay | Await | Drop | Tokens
_KINDS: dict[str, type[Step]] = {step.kind: step for step in (Text, Call, Fail, Delay, Await, Drop, Tokens)}


def as_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The steps for the wire between a test and the fake."""
    return [{"step": step.kind, **asdict(step)} for step in steps]


def from_json(steps: Sequence[dict[str, Any]]) -> list[Step]:
    """The steps that were sent with :func:`as_json`."""
    return [_KINDS[step["step"]](**{name: value for name, value in step.items() if name != "step"}) for step in steps]


def turns(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps that answer one request each: tool calls, a failure and a cut connection end an answer."""
    found: list[list[Step]] = [[]]
    for step in steps:
        last = found[-1][-1] if found[-1] else None
        if isinstance(last, Fail | Drop) or (isinstance(last, Call) and not isinstance(step, Call)):
            found.append([])
        found[-1].append(step)
    return found
