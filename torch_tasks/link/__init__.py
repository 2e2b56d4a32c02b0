"""How requests of this process reach the fleet: directly, through an agent's desk, or through a server.

Light to import: a command in an agent's pane starts with little more than this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch_tasks.operations.operation import Asked, Operation, Reply


class Link(Protocol):
    """One way on which operations are performed."""

    def perform(self, operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
        """Do what is asked for; raises the errors of the operation, wherever it is carried out.

        With the same ``key``, a second request gets the reply of the first, and nothing is done again.
        """


def link() -> Link:
    """The link of this process, as its environment says."""
    from torch_tasks.link.desk import desk_of_this_pane

    if desk := desk_of_this_pane():
        return desk

    from torch_tasks.link.direct import DirectLink

    return DirectLink()


def perform(operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
    """Perform an operation on this process's own link."""
    return link().perform(operation, asked, key)
