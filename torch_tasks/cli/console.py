"""``torch-tasks console``."""

from __future__ import annotations

import os
import sys
import webbrowser
from html import escape
from urllib.parse import urlsplit, urlunsplit

import click

from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json
from torch_tasks.errors import ServerUnreachable
from torch_tasks.machine.agent_folder import refuse_in_pane
from torch_tasks.machine.own_server import own_token_for, server_of
from torch_tasks.settings import settings
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import write_private

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - where a server listens, not where this one does
"""Where a server is asked that listens at every address of this machine."""


@click.command()
@click.argument("page", default="/")
@click.option("--no-browser", is_flag=True, help="Only print the link, also where there is a display.")
@JSON
def console(page: str, no_browser: bool, json_wanted: bool) -> None:
    """Print a link that logs a browser in at the console, and open it where there is a display.

    It works once, and for a minute. PAGE is where it leads, as /fleet.
    """
    state = settings().state
    refuse_in_pane(state, "console")
    link = login_link(state, page)
    if json_wanted:
        as_json({"url": link})
        return
    click.echo(link)
    if has_display() and not no_browser and not open_quietly(state, link):
        click.echo("no browser could be opened here; the link works once, within a minute", err=True)


def login_link(state: StateFolder, page: str) -> str:
    """A link of this folder's own server, for its owner."""
    from torch_tasks.link.server import ServerLink  # `up` prints an address and asks no server

    own = server_of(state)
    token = own_token_for(state, own.url) if own else None
    if own is None or token is None:
        raise ServerUnreachable(
            f"no server runs in {state.path}, which would have the console: 'torch-tasks up' starts one with all the "
            "rest, 'torch-tasks serve' it alone"
        )
    return ServerLink(reachable(own.url), token).login_link(page)


def reachable(url: str) -> str:
    """The address at which a browser of this machine reaches a server that listens there."""
    parts = urlsplit(url)
    host = _EVERYWHERE.get(parts.hostname or "")
    return urlunsplit(parts._replace(netloc=f"{host}:{parts.port}")) if host else url


def has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_quietly(state: StateFolder, link: str) -> bool:
    """Open the link by a file that only this user reads: the other users of the machine see what a program is given."""
    file = state.console_link
    write_private(file, f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(link)}">\n')
    return webbrowser.open(file.as_uri())
