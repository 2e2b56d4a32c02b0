"""``torch-tasks node | scale``."""

from __future__ import annotations

import sys
from typing import Any

import click

from torch_tasks.cli.joining import invite, join
from torch_tasks.cli.names import NODE
from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import ago, as_json, as_table
from torch_tasks.cli.tables import Column, state, wrapped
from torch_tasks.client import Torch, await_empty
from torch_tasks.link import perform
from torch_tasks.model.near import did_you_mean
from torch_tasks.model.node import NodeInfo
from torch_tasks.operations import fleet, nodes
from torch_tasks.operations.operation import Nothing

_GIGABYTE = 1 << 30
_COLUMNS = (
    Column("NODE"),
    state(),
    Column("ADDRESS", spare=2),
    wrapped("LABELS", least=10),
    Column("AGENTS"),
    Column("CPUS", spare=4),
    Column("LOAD", spare=1),
    Column("FREE GB", spare=3),
    Column("VERSION", spare=5),
    Column("LAST SEEN"),
)
_NODE_COLUMNS = (Column("NODE"), state(), Column("HOST"), Column("PID"), Column("STATE FOLDER"))
_KEPT_COLUMNS = (
    Column("AGENT"),
    Column("ROLE", spare=2),
    Column("KIND", spare=1),
    Column("PARENT", spare=3),
    state("WORKER"),
    wrapped("WHY"),
)


class _Node(click.Group):
    """A group that runs the node worker, with Celery's options, when none of its commands is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            return super().parse_args(ctx, args)
        if args and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.commands, f"there are {', '.join(self.commands)}")
            raise click.UsageError(f"there is no command {args[0]!r} of node; {hint}", ctx)
        ctx.obj = tuple(args)
        return super().parse_args(ctx, [])

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(ctx.obj, tuple) and not ctx._protected_args:
            if {"-h", "--help"} & set(ctx.obj):
                click.echo(ctx.get_help() + "\n\nThe node worker's own options:\n")
                sys.stdout.flush()
            from torch_tasks.cli.workers import become_celery

            become_celery(("--node", *ctx.obj))
            return None
        return super().invoke(ctx)


@click.group(cls=_Node, invoke_without_command=True, add_help_option=False)
def node() -> None:
    """Run this machine's node worker; all options are those of `celery -A torch_tasks worker`.

    With a command: show the fleet's nodes, or take one out of use.
    """


@node.command("list")
@JSON
def list_(json_wanted: bool) -> None:
    """List the nodes, and how much of its memory the broker uses."""
    found, memory = Torch().nodes(), perform(fleet.memory, Nothing())
    if json_wanted:
        as_json({"nodes": found, "broker": {"memory_used": memory.used, "memory_limit": memory.limit or None}})
        return
    as_table(_COLUMNS, map(_row, found))
    click.echo(f"the broker uses {memory}")


def _row(info: NodeInfo) -> tuple[Any, ...]:
    capacity = info.capacity
    state = "drained" if info.drained and info.online else info.status
    agents = f"{len(info.agents)} of {capacity.agents_limit}"
    free = f"{capacity.memory_free / _GIGABYTE:.1f} of {capacity.memory_total / _GIGABYTE:.1f}"
    labels = ",".join(info.labels)
    who = (info.name, state, info.address, labels, agents, capacity.cpus, capacity.load)
    return *who, free, info.version, ago(info.last_heartbeat)


@node.command()
@click.argument("name", metavar="NODE", type=NODE)
@JSON
def show(name: str, json_wanted: bool) -> None:
    """Show one node, and the state of each agent it keeps."""
    info = Torch().node(name)
    if json_wanted:
        as_json(info)
        return
    where = (name, info.status, info.host, info.pid, info.state_dir)
    as_table(_NODE_COLUMNS, [where])
    as_table(
        _KEPT_COLUMNS,
        [(one.agent_id, one.role, one.kind, one.parent or "", one.state, one.reason) for one in info.agents],
    )


@node.command()
@click.argument("name", metavar="NODE", type=NODE)
@click.option("--hand-over", is_flag=True, help="Hand its tasks over to able agents elsewhere.")
@click.option("--wait", "timeout", type=Duration(or_zero=True), help="Wait this long until no task runs there.")
@JSON
def drain(name: str, hand_over: bool, timeout: float | None, json_wanted: bool) -> None:
    """Take this node out of use: no agent is started there, and its agents take no new tasks."""
    drained = Torch().drain(name, hand_over=hand_over)
    if json_wanted:
        if timeout is not None:
            await_empty(name, timeout)
        as_json(drained)
        return
    click.echo(f"node {name} is drained: it starts no more agents; 'torch-tasks node undrain {name}' undoes that")
    if drained.held:
        click.echo(f"these agents take no new tasks: {', '.join(drained.held)}")
    for agent, task in drained.handed_over:
        click.echo(f"{agent} hands task {task} over to another agent")
    for agent, task in drained.working:
        click.echo(f"{agent} finishes task {task} first")
    if timeout is not None:
        await_empty(name, timeout)
        click.echo(f"no task runs on {name} any more")


@node.command()
@click.argument("name", metavar="NODE", type=NODE)
@JSON
def undrain(name: str, json_wanted: bool) -> None:
    """Put this node back to use: agents are started there again, and its agents take tasks."""
    resumed = Torch().undrain(name)
    if json_wanted:
        as_json({"node": name, "resumed": resumed})
        return
    click.echo(f"node {name} is in use again: agents can be started there")
    if resumed:
        click.echo(f"these agents take tasks again: {', '.join(resumed)}")


node.add_command(invite)
node.add_command(join)


@click.command()
@click.option("--dry-run", is_flag=True, help="Print the decisions without starting agents.")
@click.option("--explain", is_flag=True, help="Print the reasons for each pool.")
@JSON
def scale(dry_run: bool, explain: bool, json_wanted: bool) -> None:
    """Grow the pools of torch.toml to match the waiting tasks, as beat does at intervals."""
    plan = perform(nodes.plan if dry_run else nodes.grow, Nothing())
    if json_wanted:
        as_json(plan)
        return
    if plan.elsewhere:
        click.echo("another process is letting the pools grow at this moment", err=True)
    elif not plan.decisions:
        click.echo("no pools are declared; declare one with a [[pools]] table in torch.toml", err=True)
    for decision in plan.decisions:
        would = "would grow" if dry_run else "grows"
        change = f"{would} to {decision.size + decision.grow}" if decision.grow else "stays"
        click.echo(f"{decision.pool}: {decision.size} agents, {change}")
        for why in decision.why if explain else ():
            click.echo(f"  {why}")
    for queue in plan.unserved:
        click.echo(
            f"tasks wait in {queue}: no agent reads it and no pool serves it; spawn an agent or declare a pool",
            err=True,
        )
