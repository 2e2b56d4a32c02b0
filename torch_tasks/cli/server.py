"""``torch-tasks serve | token``."""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime

import click

from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import ago, as_json, as_json_or_line, as_table, local
from torch_tasks.cli.tables import Column
from torch_tasks.machine.agent_folder import refuse_in_pane
from torch_tasks.server.tokens import AccessTokens, TokenRole
from torch_tasks.settings import settings
from torch_tasks.system.loading import loading
from torch_tasks.system.own_log import FOR_PEOPLE, begin_log


@click.command()
@click.option("--host", help="The address to listen at (default: TORCH_SERVER_HOST, loopback).")
@click.option("--port", type=click.IntRange(0, 65535), help="The port (default: TORCH_SERVER_PORT); 0: a free one.")
def serve(host: str | None, port: int | None) -> None:
    """Serve the fleet by HTTP until Ctrl-C: an API at /api/v1, events, health."""
    with loading():  # what listens is not needed for tokens
        from torch_tasks.server.serving import serve as serve_until_the_end

    refuse_in_pane(settings().state, "serve")
    logging.basicConfig(level=logging.INFO, format=FOR_PEOPLE)
    begin_log(logging.getLogger(), settings(), "server")
    given = {"server_host": host, "server_port": port}
    chosen = settings().model_copy(update={name: value for name, value in given.items() if value is not None})

    def say(url: str, token_file: str) -> None:
        click.echo(f"server  {url}  your own token is in {token_file}")
        sys.stdout.flush()

    serve_until_the_end(chosen, say)
    sys.stdout.flush()
    os._exit(0)  # threads that wait for a task on behalf of clients that are gone would keep the process for 30 s


@click.group()
def token() -> None:
    """Make, list and revoke the tokens with which others reach this machine's server."""
    refuse_in_pane(settings().state, "token")


@token.command()
@click.option("--name", required=True, help="What its bearer is called in messages, records and logs.")
@click.option(
    "--role", required=True, type=click.Choice([str(role) for role in TokenRole]), help="What its bearer may do."
)
@click.option("--expires", type=Duration(), help="How long it lasts, as 90d (default: until it is revoked).")
@JSON
def create(name: str, role: str, expires: float | None, json_wanted: bool) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    made = AccessTokens(settings().state).create(name, TokenRole(role), expires)
    as_json_or_line(json_wanted, {"name": name, "role": role, "token": made}, made)


@token.command("list")
@JSON
def list_tokens(json_wanted: bool) -> None:
    """List the tokens, without what they consist of."""
    tokens = AccessTokens(settings().state).all()
    if json_wanted:
        as_json([one.model_dump(mode="json", exclude={"sha256"}) | {"expired": one.expired} for one in tokens])
        return
    rows = [(one.name, one.role, ago(one.created_at), _end_of(one.expires_at, one.expired)) for one in tokens]
    as_table((Column("NAME"), Column("ROLE"), Column("MADE"), Column("EXPIRES")), rows)


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a token: from now on it opens nothing, and streams that it opened end."""
    AccessTokens(settings().state).revoke(name)
    click.echo(f"revoked {name}")


def _end_of(expires_at: datetime | None, expired: bool) -> str:
    return "expired" if expired else local(expires_at) or "never"
