"""``torch-tasks node invite | join``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from torch_tasks.caller import CallerKind
from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import as_json_or_line
from torch_tasks.errors import ProcessNotStarted, WrongUsage
from torch_tasks.machine.agent_folder import refuse_in_pane
from torch_tasks.machine.joining import JoinToken, invite_machine
from torch_tasks.machine.joining import join as join_fleet
from torch_tasks.settings import settings
from torch_tasks.signing.keyring import keyring
from torch_tasks.system.processes import Processes

_LOOK_SECONDS = 1.0


@click.command()
@click.option("--minutes", type=click.IntRange(1, 1440), default=10, show_default=True, help="How long it counts.")
@click.option("--name", metavar="NODE", help="The machine's name; it gets users of its own on the broker.")
@JSON
def invite(minutes: int, name: str | None, json_wanted: bool) -> None:
    """Print a token with which one further machine joins the fleet: `torch-tasks node join TOKEN` there.

    With --name, its users on the broker are made, which takes the login of the broker's administrator in
    TORCH_BROKER_URL; without, it gets the login that this machine has. Whoever has the token may join in its stead
    until it is used or over.
    """
    refuse_in_pane(settings().state, "node invite")
    made = invite_machine(minutes * 60, name)
    as_json_or_line(json_wanted, {"token": made.text, "until": made.until}, made.text)
    if not Processes(settings().state.run).find("node"):
        click.echo("note: no process answers to that token before 'torch-tasks up' runs here", err=True)


@click.command()
@click.argument("token", required=False)
@click.option(
    "--from",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read TOKEN from this file, once it is there; a machine that has joined needs none.",
)
@click.option("--timeout", type=Duration(), default=30.0, help="How long it waits for the answer (default: 30s).")
@JSON
def join(token: str | None, file: Path | None, timeout: float, json_wanted: bool) -> None:
    """Make this machine one of the fleet that made TOKEN; `-`: read it from standard input.

    Its key is made here and never leaves it. Afterwards `torch-tasks up` and `torch-tasks node` work without settings.
    """
    refuse_in_pane(settings().state, "node join")
    if Processes(settings().state.run).all_running():
        raise ProcessNotStarted("this machine's stack is up, with the keys that it has; 'torch-tasks down' first")
    if (token is None) == (file is None):
        raise WrongUsage("name a token, or --from and the file that has it")
    if file and settings().state.joined.exists():
        own = keyring(settings()).identity(CallerKind.NODE).certificate
    else:
        text = _awaited(file) if file else sys.stdin.read() if token == "-" else str(token)  # noqa: S105 - no password
        own = join_fleet(JoinToken.read(text.strip()), settings(), timeout).certificate
    facts = {"node": own.name, "fleet": own.fleet, "serial": own.serial, "ends": own.ends_at.isoformat()}
    as_json_or_line(json_wanted, facts, f"{own.name} is a machine of fleet {own.fleet}; 'torch-tasks up' starts it")


def _awaited(file: Path) -> str:
    """The token in the file, which somebody puts there sooner or later."""
    if not file.exists():
        name = settings().node
        click.echo(
            f"waiting for a token in {file}; 'torch-tasks node invite --name {name}' on the root's machine makes it",
            err=True,
        )
    while not file.exists() or not (text := file.read_text()):
        time.sleep(_LOOK_SECONDS)
    return text
