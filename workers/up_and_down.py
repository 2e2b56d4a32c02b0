"""The hidden commands that `up` and `down` run. They load no broker's client: each start of a stack waits for them."""

from __future__ import annotations

import json
import sys

import click

from torch_tasks.errors import InvalidSettings, TorchError
from torch_tasks.model.agent import AgentSpec
from torch_tasks.settings import settings
from torch_tasks.workers.configuration import configuration_faults
from torch_tasks.workers.host.terminal import end_terminal
from torch_tasks.workers.programs.kind import require_startable

_INTERRUPTED = "interrupted by 'torch-tasks down'"


@click.command(hidden=True)
def end_panes() -> None:
    """End every pane that the state folder knows of, and name them, once standard input says so: the workers are gone.

    `down` runs this. Without the word it ends nothing: then `down` itself has been ended.
    """
    if not sys.stdin.readline():
        sys.exit(1)
    failed = False
    for folder in settings().state.agents():
        try:
            if end_terminal(folder.name, settings(), _INTERRUPTED):
                click.echo(folder.name)
        except (TorchError, OSError) as error:  # the others end all the same
            click.echo(f"{folder.name}: {error}", err=True)
            failed = True
    sys.exit(1 if failed else 0)


@click.command(hidden=True)
@click.argument("agents", nargs=-1)
def check_agents(agents: tuple[str, ...]) -> None:
    """Check the configuration, then print why which agents, by default of torch.toml's, cannot be started here.

    `up` runs this first.
    """
    if faults := configuration_faults():
        raise InvalidSettings("\n".join(faults))
    reasons: dict[str, str] = {}
    for spec in [AgentSpec.parse(text) for text in agents] or settings().agents:
        try:
            require_startable(spec)
        except TorchError as error:
            reasons[spec.id] = str(error)
    click.echo(json.dumps(reasons))
