"""``torch-tasks pause | resume | stop | start``."""

from __future__ import annotations

import click

from torch_tasks.client import Torch
from torch_tasks.errors import BrokerUnreachable, InvalidHold
from torch_tasks.machine.holds import NodeHolds
from torch_tasks.model.hold import EVERYBODY
from torch_tasks.orchestration.holds import Said
from torch_tasks.settings import settings

_ROLE = click.option("--role", help="All agents of this role, also those that start later.")
_ALL = click.option("--all", "everybody", is_flag=True, help="All agents, also those that start later.")
_FLEET = click.option("--all", "everywhere", is_flag=True, help="The whole fleet, on every machine.")
_HERE = click.option("--here", is_flag=True, help="This machine alone; needs no broker.")
_REASON = click.option("--reason", default="", help="Why; it is shown wherever somebody waits for it.")


@click.command()
@click.argument("agent_id", metavar="[AGENT]", required=False)
@_ROLE
@_ALL
@_REASON
@click.option(
    "--interrupt", is_flag=True, help="Interrupt what they do; it goes back to its queue, for whoever is able."
)
def pause(agent_id: str | None, role: str | None, everybody: bool, reason: str, interrupt: bool) -> None:
    """Have AGENT, all of a role, or all take no new task. What they do goes on; messages wait, but for emergencies."""
    _tell("paused", Torch().pause(agent_id, role=role, everybody=everybody, reason=reason, interrupt=interrupt))


@click.command()
@click.argument("agent_id", metavar="[AGENT]", required=False)
@_ROLE
@_ALL
@_REASON
def resume(agent_id: str | None, role: str | None, everybody: bool, reason: str) -> None:
    """Lift what `pause` with the same words set. Any other pause stays, and is named."""
    said = Torch().resume(agent_id, role=role, everybody=everybody, reason=reason)
    _tell("resumed", said)
    concerned = {*said.heard, *said.silent} if said.scope != EVERYBODY else None
    for info in Torch().agents(online=True):
        if info.hold_reason and (concerned is None or info.agent_id in concerned):
            click.echo(f"still {info.agent_id}: {info.hold_reason}")


@click.command()
@_FLEET
@_HERE
@_REASON
def stop(everywhere: bool, here: bool, reason: str) -> None:
    """Stop everything, with the broker or without: nothing begins, what runs is interrupted and goes back to its queue.

    A file, STOP in the state folder, is written on this machine, and with --all on every other as soon as it can be
    told. While it is there, nothing begins on its machine, whoever wrote it.
    """
    _require_one(everywhere, here)
    said = Torch().stop(reason, here=here)
    _tell("stopped", said)
    click.echo(f"{NodeHolds(settings().state_dir).stop_file} is written; 'torch-tasks start {_word(here)}' lifts it")
    if said.unreached:
        raise BrokerUnreachable(
            f"only this machine is stopped yet; the others are told once the broker is back: {said.unreached}"
        )


@click.command()
@_FLEET
@_HERE
@_REASON
def start(everywhere: bool, here: bool, reason: str) -> None:
    """Lift what `stop` with the same option set."""
    _require_one(everywhere, here)
    _tell("started", Torch().start(reason, here=here))
    if left := NodeHolds(settings().state_dir).stop:
        click.echo(f"still stopped here, {left}: 'torch-tasks start {_word(not left.fleet)}' lifts it")


def _require_one(everywhere: bool, here: bool) -> None:
    if everywhere == here:
        raise InvalidHold("say --all for the whole fleet, or --here for this machine alone")


def _word(here: bool) -> str:
    return "--here" if here else "--all"


def _tell(done: str, said: Said) -> None:
    click.echo(f"{done}: {said.scope}, {said.hold}")
    if said.heard:
        click.echo(f"confirmed by {', '.join(said.heard)}")
    if said.silent:
        click.echo(f"no answer yet from {', '.join(said.silent)}: they hear of it with their next heartbeat")
