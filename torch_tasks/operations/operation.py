"""What an operation is, and how the doors find one by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Generic, Self, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from torch_tasks.errors import InvalidRequest, UnknownOperation
from torch_tasks.model.fields import Model, readable
from torch_tasks.model.near import did_you_mean
from torch_tasks.operations.shown import shown
from torch_tasks.security.rights import Right, Subject

if TYPE_CHECKING:
    from torch_tasks.monitoring.flow import FlowEvent

WAIT_SECONDS = 30.0
"""The longest that one request waits; who wants to wait longer asks again."""
WaitSeconds = Annotated[
    float, Field(ge=0, le=WAIT_SECONDS, description="Return at the latest after so long; then ask again.")
]

Asked = TypeVar("Asked", bound="Request")
Reply = TypeVar("Reply")

NOUNS = {
    "policy": "torch_tasks.operations.policy",
    "audit": "torch_tasks.operations.audit",
    "task": "torch_tasks.operations.tasks",
    "pane": "torch_tasks.operations.pane",
    "message": "torch_tasks.operations.messages",
    "checkin": "torch_tasks.operations.checkins",
    "note": "torch_tasks.operations.collaboration",
    "claim": "torch_tasks.operations.collaboration",
    "help": "torch_tasks.operations.collaboration",
    "team": "torch_tasks.operations.collaboration",
    "agent": "torch_tasks.operations.agents",
    "node": "torch_tasks.operations.nodes",
    "pool": "torch_tasks.operations.nodes",
    "fleet": "torch_tasks.operations.fleet",
    "budget": "torch_tasks.operations.fleet",
    "canvas": "torch_tasks.operations.canvas",
    "name": "torch_tasks.operations.names",
}
"""Where the operations of each noun are declared; a module is loaded when one of its operations is asked for."""


class Request(Model):
    """What a caller asks for; the fields of an operation."""

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A request of these fields, or :class:`InvalidRequest` that says what is wrong with them."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequest(f"this request cannot be accepted: {readable(error)}") from None


class Nothing(Request):
    """A request without fields."""


class Access(StrEnum):
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True)
class News:
    """By which events a door at which many wait knows when to ask again for one of them."""

    concerns: Callable[[Any], Callable[[FlowEvent], bool]]
    """Whether an event may bring what a request waits for."""
    came: Callable[[Any, Any], bool]
    """Whether a reply to a request is what it waits for."""


@dataclass(frozen=True)
class Operation(Generic[Asked, Reply]):
    """One act that a caller may ask for."""

    name: str
    access: Access
    right: Right
    request: type[Asked]
    carry_out: Callable[[Asked], Reply]
    """Does it in this process, for :func:`torch_tasks.caller.caller`, whatever that may."""
    about: Callable[[Asked], Subject]
    also: Callable[[Asked], Right | None]
    """A further right that this request takes."""
    idempotent: bool
    """Whether doing it twice is as doing it once, so that a request with a key may be carried out again."""
    needs_broker: bool
    """Whether the broker has to be there, and what it forgot of the tasks of this machine is put back first."""
    verbatim: bool
    """Whether the reply is for the one whom its texts are for, word for word; else the secrets in it are replaced."""
    news: News | None = None
    """If it waits for what events tell of."""

    def reply_to(self, asked: Asked) -> Reply:
        """Carry it out, and return what the caller may see of the reply."""
        reply = self.carry_out(asked)
        return reply if self.verbatim else shown(reply)

    @cached_property
    def description(self) -> str:
        """What it does, in one line."""
        return (inspect.getdoc(self.carry_out) or "").partition("\n")[0]

    @cached_property
    def reply(self) -> TypeAdapter[Reply]:
        """The form of its reply."""
        return TypeAdapter(get_type_hints(self.carry_out, include_extras=True)["return"])


def operation(
    name: str,
    right: Right,
    *,
    access: Access = Access.READ,
    about: Callable[[Any], Subject] = lambda _: Subject(),
    also: Callable[[Any], Right | None] = lambda _: None,
    idempotent: bool = False,
    needs_broker: bool = True,
    verbatim: bool = False,
    news: News | None = None,
) -> Callable[[Callable[[Asked], Reply]], Operation[Asked, Reply]]:
    """Declare the function as the operation of this name; its first docstring line describes it to every door."""

    def declare(carry_out: Callable[[Asked], Reply]) -> Operation[Asked, Reply]:
        (parameter,) = inspect.signature(carry_out).parameters
        request = get_type_hints(carry_out)[parameter]
        declared = Operation(
            name, access, right, request, carry_out, about, also, idempotent, needs_broker, verbatim, news
        )
        _DECLARED[name] = declared
        return declared

    return declare


_DECLARED: dict[str, Operation[Any, Any]] = {}


def operation_named(name: str) -> Operation[Any, Any]:
    """The operation of this name; :class:`UnknownOperation` if there is none."""
    noun = name.partition(".")[0]
    if noun in NOUNS:
        import_module(NOUNS[noun])
    if name not in _DECLARED:
        hint = did_you_mean(name, [one.name for one in all_operations()], "'torch-tasks operations' lists them")
        raise UnknownOperation(f"there is no operation {name!r}; {hint}")
    return _DECLARED[name]


def all_operations() -> Iterator[Operation[Any, Any]]:
    """Every operation, noun by noun."""
    for noun, module in NOUNS.items():
        import_module(module)
        yield from (one for one in _DECLARED.values() if one.name.startswith(f"{noun}."))


def request_of(declared: Operation[Asked, Any], fields: Mapping[str, Any]) -> Asked:
    """The operation's request from the fields that a door was given."""
    return declared.request.build(**fields)
