"""``torch-tasks deploy``."""

from __future__ import annotations

from pathlib import Path

import click

from torch_tasks.deploy.deployed_fleet import DeployedFleet
from torch_tasks.deploy.deployment_secrets import make_missing
from torch_tasks.deploy.profiles import COMPOSE, KUBERNETES, SYSTEMD, Profile, next_steps, write
from torch_tasks.machine.agent_folder import refuse_in_pane
from torch_tasks.settings import settings

OUT = click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where they go.")
NODES = click.option(
    "--nodes", type=click.IntRange(1, 50), default=2, show_default=True, help="How many nodes have agents."
)
NAMESPACE = click.option("--namespace", default="torch", show_default=True, help="That of Kubernetes.")
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


@deploy.command()
@OUT
@FORCE
@NODES
def compose(out: Path, force: bool, nodes: int) -> None:
    """A whole fleet in containers on one machine: broker, nodes, beats, server, Flower, Prometheus, Grafana."""
    _write(COMPOSE, DeployedFleet(settings(), nodes), out, force=force)


@deploy.command()
@OUT
@FORCE
@NODES
@NAMESPACE
def kubernetes(out: Path, force: bool, nodes: int, namespace: str) -> None:
    """A whole fleet as manifests for kustomize: broker, nodes, beats, server, network policies, probes, budgets."""
    _write(KUBERNETES, DeployedFleet(settings(), nodes, namespace), out, force=force)


@deploy.command()
@OUT
@NAMESPACE
def secrets(out: Path, namespace: str) -> None:
    """Make the passwords and the certificate of a deployment's broker, those of Flower and Grafana.

    What is there already stays: to have a new one, remove the old one.
    """
    for file in make_missing(out, namespace):
        click.echo(f"made {file}")
    click.echo(f"{out} is for you alone: put it into no repository, and keep a copy where nobody finds it")


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
