"""How requests of this process reach the fleet: directly, through an agent's desk, or through a server.

Light to import: a command in an agent's pane starts with little more than this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch_tasks.config_files import glance

if TYPE_CHECKING:
    from torch_tasks.operations.operation import Asked, Operation, Reply


SERVER_VARIABLE = "TORCH_SERVER"
TOKEN_VARIABLE = "TORCH_TOKEN_FILE"  # noqa: S105 - its name
NO_SERVER = "none"
"""What the variable says to a process that is to reach the broker itself although torch.toml names a server."""


class Link(Protocol):
    """One way on which operations are performed."""

    def perform(self, operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
        """Do what is asked for; raises the errors of the operation, wherever it is carried out.

        With the same ``key``, a second request gets the reply of the first, and nothing is done again.
        """


def server_chosen() -> str | None:
    """The server through which this process reaches the fleet, if its environment or torch.toml names one."""
    return None if (named := glance("server")) == NO_SERVER else named


def link(server: str | None = None, token: str | None = None) -> Link:
    """The link of this process, as its environment says, or through the server at this address."""
    from torch_tasks.link.desk import desk_of_this_pane

    if server is None and (desk := desk_of_this_pane()):
        return desk
    if address := server or server_chosen():
        from torch_tasks.link.server import ServerLink, kept_link

        return ServerLink(address, token) if server or token else kept_link(address)

    from torch_tasks.link.direct import DirectLink

    return DirectLink()


def perform(operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
    """Perform an operation on this process's own link."""
    return link().perform(operation, asked, key)
