"""``torch-tasks scale``: what the autoscaler does, and why."""

from __future__ import annotations

import click

from torch_tasks.cli.output import as_json


@click.command()
@click.option("--dry-run", is_flag=True, help="Only decide.")
@click.option("--explain", is_flag=True, help="Say why, for each pool.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
def scale(dry_run: bool, explain: bool, json_wanted: bool) -> None:
    """Have the pools of torch.toml grow by what waits for them, as beat does at intervals."""
    from torch_tasks.broker.connection import broker_errors
    from torch_tasks.fleet import fleet
    from torch_tasks.orchestration.scaling import Autoscaler

    with broker_errors():
        scaler = Autoscaler(fleet())
        plan = scaler.plan() if dry_run else scaler.step()
    if json_wanted:
        as_json(plan)
        return
    if not fleet().settings.pools:
        click.echo("no pools are declared; [[pools]] tables in torch.toml do that", err=True)
    for decision in plan.decisions:
        would = "would grow" if dry_run else "grows"
        change = f"{would} to {decision.size + decision.grow}" if decision.grow else "stays"
        click.echo(f"{decision.pool}: {decision.size} agents, {change}")
        for why in decision.why if explain else ():
            click.echo(f"  {why}")
    for queue in plan.unserved:
        click.echo(f"{queue}: no agent reads it and no pool serves it", err=True)
