"""How requests of tools are carried out where operations are performed by their own requests and replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch_tasks.operations.operation import Operation, operation_named, request_of


class Perform(Protocol):
    """What performs an operation: a link, or this process itself."""

    def __call__(self, operation: Operation[Any, Any], asked: Any, key: str | None = None) -> Any: ...


def asking(perform: Perform) -> Callable[[str, Mapping[str, Any], str | None], Any]:
    """A function that performs an operation by its name, with fields and a reply as JSON has them."""

    def ask(name: str, fields: Mapping[str, Any], key: str | None) -> Any:
        operation = operation_named(name)
        reply = perform(operation, request_of(operation, fields), key)
        return operation.reply.dump_python(reply, mode="json")

    return ask
