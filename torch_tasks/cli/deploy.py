"""``torch-tasks deploy``."""

from __future__ import annotations

from pathlib import Path

import click

from torch_tasks.deploy.deployed_fleet import DeployedFleet
from torch_tasks.deploy.profiles import SYSTEMD, Profile, next_steps, write
from torch_tasks.machine.agent_folder import refuse_in_pane
from torch_tasks.settings import settings

OUT = click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where they go.")
FORCE = click.option("--force", is_flag=True, help="Overwrite files that are there.")


@click.group()
def deploy() -> None:
    """Write the files with which systemd, compose or Kubernetes runs this fleet, from the settings here.

    No secret is written into them: docs/deploy.md says where each lies.
    """
    refuse_in_pane(settings().state, "deploy")


@deploy.command()
@OUT
@FORCE
def systemd(out: Path, force: bool) -> None:
    """Units for the machines of a fleet: node, beat, server, Flower."""
    _write(SYSTEMD, DeployedFleet(settings()), out, force=force)


def _write(profile: Profile, fleet: DeployedFleet, out: Path, *, force: bool) -> None:
    for file in write(profile, fleet, out, force=force):
        click.echo(f"wrote {file}")
    if fleet.left_out:
        click.echo(f"Not taken over, since each machine has its own: {', '.join(fleet.left_out)}")
    if fleet.secrets:
        click.echo(
            f"Not written down, since it may be secret; add it where the secrets are: {', '.join(fleet.secrets)}"
        )
    click.echo("Next:")
    for step in next_steps(profile, fleet, out):
        click.echo(f"  {step}")
