"""``torch-tasks down``: it loads neither Celery nor a broker's client, so that it ends at once what it is to end."""

from __future__ import annotations

import click

from torch_tasks.cli.output import waiting
from torch_tasks.errors import InvalidSettings
from torch_tasks.machine.stack import Stack
from torch_tasks.settings import settings, settings_for_ending


@click.command()
@click.option("--keep-agents", is_flag=True, help="Leave the agents' panes open; the next `up` adopts them.")
def down(keep_agents: bool) -> None:
    """Stop everything that `up` started: the server, Flower, beat, the workers, the agents' panes, the broker."""
    try:
        chosen = settings()
    except InvalidSettings as error:
        chosen = settings_for_ending()
        click.echo(f"{error}; ending what runs in {chosen.state_dir} all the same", err=True)
    with waiting("ending"):
        ended = Stack(chosen).down(keep_agents=keep_agents)
    click.echo(f"ended: {', '.join(ended)}" if ended else f"nothing was running in {chosen.state_dir}")
