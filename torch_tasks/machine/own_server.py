"""Where this machine's own server, node worker and beat listen, for the commands of the user whose they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from torch_tasks.model.fields import Model
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.system.processes import birth, is_alive


class OwnServer(Model):
    """A process that serves pages at an address, and when it began."""

    url: str
    pid: int
    born: str

    @classmethod
    def note(cls, file: Path, url: str) -> Self:
        """Other processes find this one by the file, at the address."""
        own = cls(url=url, pid=os.getpid(), born=birth(os.getpid()))
        write_private(file, own.model_dump_json())
        return own

    @classmethod
    def living(cls, file: Path) -> Self | None:
        """The process that the file names, while it lives."""
        with suppress(OSError, ValidationError):
            own = cls.model_validate_json(file.read_bytes())
            return own if is_alive(own.pid, own.born) else None
        return None


@contextmanager
def recorded(state: StateFolder, url: str) -> Iterator[None]:
    """Other processes find this one as the folder's server at the address."""
    make_folder(state.path)
    own = OwnServer.note(state.server_address, url)
    try:
        yield
    finally:
        if server_of(state) == own:
            state.server_address.unlink(missing_ok=True)


def server_of(state: StateFolder) -> OwnServer | None:
    """The folder's server, while it lives."""
    return OwnServer.living(state.server_address)


def metrics_at(state: StateFolder) -> str | None:
    """Where this machine's node worker shows its metrics, while it lives."""
    own = OwnServer.living(state.metrics_address)
    return f"{own.url}/metrics" if own else None


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
