"""This machine's own server: where it listens, for the commands of the user whose server it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydantic import ValidationError

from torch_tasks.model.fields import Model
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.system.processes import birth, is_alive


class OwnServer(Model):
    """The server that runs in a state folder."""

    url: str
    pid: int
    born: str


@contextmanager
def recorded(state: StateFolder, url: str) -> Iterator[None]:
    """Other processes find this one as the folder's server at the address."""
    make_folder(state.path)
    own = OwnServer(url=url, pid=os.getpid(), born=birth(os.getpid()))
    write_private(state.server_address, own.model_dump_json())
    try:
        yield
    finally:
        if server_of(state) == own:
            state.server_address.unlink(missing_ok=True)


def server_of(state: StateFolder) -> OwnServer | None:
    """The folder's server, while it lives."""
    with suppress(OSError, ValidationError):
        own = OwnServer.model_validate_json(state.server_address.read_bytes())
        return own if is_alive(own.pid, own.born) else None
    return None


def own_token_for(state: StateFolder, url: str) -> str | None:
    """The token of the folder's owner, if its own server listens at this very address.

    Only that server gets it: where no server of this folder lives, another user's process may have taken its port.
    """
    own = server_of(state)
    if own is None or own.url != url:
        return None
    with suppress(OSError):
        return state.server_token.read_text().strip()
    return None
