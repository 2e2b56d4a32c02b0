"""``python -m torch_tasks.store.agents``: the plan's own words for the registry's commands."""

from __future__ import annotations

import sys

import click

from torch_tasks.cli.agents import agents
from torch_tasks.cli.output import as_json
from torch_tasks.client import Torch
from torch_tasks.errors import TorchError
from torch_tasks.monitoring import SystemMonitor
from torch_tasks.monitoring.system_monitor import Health


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--list", "listed", is_flag=True, help="List the agents.")
@click.option("--status", "status", is_flag=True, help="Tell how the system is, as JSON; exit code 1 if it is down.")
@click.option("--spawn", nargs=2, metavar="ROLE SKILLS", help="Start an agent of this role with these skills.")
@click.pass_context
def registry(ctx: click.Context, listed: bool, status: bool, spawn: tuple[str, str] | None) -> None:
    """Who is there."""
    if listed + status + bool(spawn) != 1:
        raise click.UsageError("say one of --list, --status and --spawn ROLE SKILLS")
    try:
        if listed:
            ctx.invoke(agents)
        elif spawn:
            role, skills = spawn
            click.echo(Torch().spawn(role, skills.replace(",", " ").split()).agent_id)
        else:
            health = SystemMonitor().get_system_health()
            as_json(health)
            sys.exit(int(health.status is Health.DOWN))
    except TorchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
