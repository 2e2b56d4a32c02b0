"""The link of a trusted process of this machine's user."""

from __future__ import annotations

from torch_tasks.operations.operation import Asked, Operation, Reply
from torch_tasks.operations.performing import perform_here


class DirectLink:
    """This process carries out what it asks for: it reaches the broker itself."""

    def perform(self, operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
        return perform_here(operation, asked, key)
