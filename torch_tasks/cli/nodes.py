"""``torch-tasks node | scale``: this machine's node worker, all nodes, and how the pools grow on them."""

from __future__ import annotations

import sys
from typing import Any

import click

from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import ago, as_json, as_table
from torch_tasks.cli.workers import become_celery
from torch_tasks.client import Torch
from torch_tasks.fleet import fleet
from torch_tasks.model.node import NodeInfo
from torch_tasks.orchestration.scaling import Autoscaler

_GIGABYTE = 1 << 30


class _Node(click.Group):
    """A group that is itself the node worker, with Celery's options, when none of its commands is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            return super().parse_args(ctx, args)
        ctx.obj = tuple(args)
        return super().parse_args(ctx, [])

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(ctx.obj, tuple) and not ctx._protected_args:
            if {"-h", "--help"} & set(ctx.obj):
                click.echo(ctx.get_help() + "\n\nThe node worker's own options:\n")
                sys.stdout.flush()
            become_celery(("--node", *ctx.obj))
            return None
        return super().invoke(ctx)


@click.group(cls=_Node, invoke_without_command=True, add_help_option=False)
def node() -> None:
    """Run this machine's node worker; all options are those of `celery -A torch_tasks worker`.

    With a command: look at the fleet's nodes, or have one take no more agents.
    """


@node.command("list")
@JSON
def list_(json_wanted: bool) -> None:
    """List the nodes."""
    found = Torch().nodes()
    if json_wanted:
        as_json(found)
        return
    headings = ("NODE", "STATE", "ADDRESS", "LABELS", "AGENTS", "CPUS", "LOAD", "FREE GB", "VERSION", "HEARD OF")
    as_table(headings, [_row(info) for info in found])


def _row(info: NodeInfo) -> tuple[Any, ...]:
    capacity = info.capacity
    state = "drained" if info.drained and info.online else info.status
    agents = f"{len(info.agents)} of {capacity.agents_limit}"
    free = f"{capacity.memory_free / _GIGABYTE:.1f} of {capacity.memory_total / _GIGABYTE:.1f}"
    labels = ",".join(info.labels)
    who = (info.name, state, info.address, labels, agents, capacity.cpus, capacity.load)
    return *who, free, info.version, ago(info.last_heartbeat)


@node.command()
@click.argument("name")
@JSON
def show(name: str, json_wanted: bool) -> None:
    """Show one node, and how the agents stand that it keeps."""
    info = Torch().node(name)
    if json_wanted:
        as_json(info)
        return
    where = (name, info.status, info.host, info.pid, info.state_dir)
    as_table(("NODE", "STATE", "HOST", "PID", "STATE FOLDER"), [where])
    as_table(
        ("AGENT", "ROLE", "KIND", "PARENT", "WORKER", "WHY"),
        [(one.agent_id, one.role, one.kind, one.parent or "", one.state, one.reason) for one in info.agents],
    )


@node.command()
@click.argument("name")
@click.option("--hand-over", is_flag=True, help="Have others go on with what is done there, where an agent is able.")
@click.option("--wait", "timeout", type=Duration(or_zero=True), help="Wait so long until nothing is done.")
def drain(name: str, hand_over: bool, timeout: float | None) -> None:
    """Have this node take no more work: no agent is started there, and those there take no new task."""
    drained = Torch().drain(name, hand_over=hand_over)
    click.echo(f"no agent is started on {name} any more; 'torch-tasks node undrain {name}' takes that back")
    if drained.held:
        click.echo(f"take no new task: {', '.join(drained.held)}")
    for agent, task in drained.handed_over:
        click.echo(f"{agent}: others go on with {task}")
    for agent, task in drained.working:
        click.echo(f"{agent}: finishes {task}")
    if timeout is not None:
        Torch().drain(name, timeout=timeout)
        click.echo(f"nothing is done on {name} any more")


@node.command()
@click.argument("name")
def undrain(name: str) -> None:
    """Have agents started on this node again, and those there take tasks."""
    resumed = Torch().undrain(name)
    click.echo(f"agents are started on {name} again")
    if resumed:
        click.echo(f"take tasks again: {', '.join(resumed)}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only decide.")
@click.option("--explain", is_flag=True, help="Say why, for each pool.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
def scale(dry_run: bool, explain: bool, json_wanted: bool) -> None:
    """Have the pools of torch.toml grow by what waits for them, as beat does at intervals."""
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
