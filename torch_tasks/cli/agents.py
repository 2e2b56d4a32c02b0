"""``torch-tasks agents | agent | spawn | retire``, and ``python -m torch_tasks.orchestration.agent_registry``."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from torch_tasks.caller import caller
from torch_tasks.cli import VisibleCommand
from torch_tasks.cli.names import AGENT, KIND, NODE, ROLE, SKILL, role_hint
from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import ago, as_json, as_json_or_line, as_table, local, plain, shown, waiting
from torch_tasks.cli.tables import Column, Fit, wrapped
from torch_tasks.client import Torch
from torch_tasks.errors import TorchError
from torch_tasks.link import perform
from torch_tasks.model.agent import AgentInfo, RetirementReport, RetireMode
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.node import KeptAgent, KeptState
from torch_tasks.model.options import FieldOptions
from torch_tasks.model.spawn import SpawnWish
from torch_tasks.monitoring.health import Health
from torch_tasks.operations import fleet
from torch_tasks.operations.operation import Nothing

_COLUMNS = (
    Column("ID"),
    Column("ROLE", spare=1),
    wrapped("SKILLS", least=10, spare=2),
    Column("KIND"),
    Column("NODE", spare=3),
    Column("STATE", Fit.WRAPPED, 16, is_state=True),
    Column("LOAD", spare=6),
    Column("SUCCESS", spare=5),
    Column("TASK"),
    Column("LAST SEEN", spare=4),
)
SPAWN_OPTIONS = FieldOptions(
    SpawnWish,
    without=("role", "id"),
    types={"kind": KIND, "skills": SKILL, "node": NODE, "parent": AGENT},
)


@click.group(invoke_without_command=True)
@click.option("--role", type=ROLE, help="Only of this role.")
@click.option(
    "--skill", "skills", multiple=True, type=SKILL, help="Only with this skill; repeat for more, all are required."
)
@click.option("--online", is_flag=True, help="Only agents that are online.")
@click.option("--all", "everybody", is_flag=True, help="Also those that are gone: they do not come back by themselves.")
@JSON
@click.pass_context
def agents(
    ctx: click.Context, role: str | None, skills: tuple[str, ...], online: bool, everybody: bool, json_wanted: bool
) -> None:
    """List the agents, or forget one."""
    if ctx.invoked_subcommand:
        return
    known = Torch().agents(role=role, skills=skills, online=True if online else None)
    gone = {info.agent_id for info in Torch().agents(gone=True)}
    found = [info for info in known if everybody or info.agent_id not in gone]
    if left := len(known) - len(found):
        who = "1 agent is" if left == 1 else f"{left} agents are"
        click.echo(f"{who} gone: 'torch-tasks agents --all' shows all, 'agents forget AGENT' removes one", err=True)
    if json_wanted:
        as_json([plain(info) | {"gone": info.agent_id in gone} for info in found])
        return
    if role and not found:
        click.echo(f"no agent has the role {role}{role_hint(role)}", err=True)
    kept = {one.agent_id: (node.name, one) for node in Torch().nodes() for one in node.agents}
    as_table(_COLUMNS, [_row(info, kept.get(info.agent_id), info.agent_id in gone) for info in found])
    for agent_id, (node, one) in kept.items():
        if one.state is KeptState.QUARANTINED:
            click.echo(
                f"{agent_id} on {node} is in quarantine: {one.reason}; "
                f"'torch-tasks agent {agent_id} --release' has it started again",
                err=True,
            )


def _row(info: AgentInfo, kept: tuple[str, KeptAgent] | None, gone: bool) -> tuple[Any, ...]:
    state = "gone" if gone else str(info.state if info.online else info.status)
    if info.retiring:
        state = "retiring"
    elif kept and kept[1].state is KeptState.QUARANTINED and not info.online:
        state = "quarantined"
    state = ", ".join(filter(None, (state, info.hold_reason)))
    known = info.performance_metrics
    ended = known.succeeded + known.failed
    success = f"{known.succeeded / ended:.0%} of {ended}" if ended else ""
    who = (info.agent_id, info.role, ",".join(info.skills), info.kind, info.node)
    return *who, state, info.load, success, shown(info.current_task or ""), ago(info.last_heartbeat)


@agents.command()
@click.argument("agent_id", metavar="AGENT", type=AGENT)
@JSON
def forget(agent_id: str, json_wanted: bool) -> None:
    """Remove an agent that does not come back from the fleet; its tasks go to others."""
    report = Torch().forget(agent_id)
    if json_wanted:
        as_json(report)
        return
    click.echo(f"{report.words}; should it come back with {report.node}, it is registered again")
    _print_left(report)


def _print_left(report: RetirementReport) -> None:
    if report.tasks:
        click.echo(f"tasks it left: {', '.join(report.tasks)}")
    if report.messages:
        click.echo(f"messages it did not read, now dead: {', '.join(report.messages)}")


@click.command()
@click.argument("agent_id", metavar="AGENT", type=AGENT)
@click.option("--release", is_flag=True, help="Have it started again, if it is in quarantine after too many crashes.")
@JSON
def agent(agent_id: str, release: bool, json_wanted: bool) -> None:
    """Show one agent."""
    if release:
        Torch().release(agent_id)
        as_json_or_line(json_wanted, {"released": agent_id}, f"{agent_id} is released: its node starts it again")
        return
    info = Torch().agent(agent_id)
    used = Torch().resources(agent_id) if info.online else None
    if json_wanted:
        as_json(plain(info) | {"resources": used})
        return
    known = info.performance_metrics
    ended = f"{known.succeeded} succeeded, {known.failed} failed, in {describe_duration(known.seconds)}"
    times = {name: local(value) for name, value in info if isinstance(value, datetime)}
    in_words = {"paused": info.paused, "stopped": info.stopped, "performance_metrics": ended}
    for name, value in (info.model_dump(mode="json") | times | in_words).items():
        click.echo(f"{name + ':':<21}{','.join(value) if isinstance(value, list) else '' if value is None else value}")
    for name, amount in used.lines() if used else ():
        click.echo(f"{name + ':':<21}{amount}")


@click.command(params=SPAWN_OPTIONS.parameters())
@click.argument("role", type=ROLE)
@JSON
def spawn(role: str, json_wanted: bool, **parameters: Any) -> None:
    """Start an agent of this ROLE somewhere in the fleet; print its id once it is ready."""
    fields: Any = SPAWN_OPTIONS.take(parameters)
    with waiting(f"starting a {role}"):
        spawned = Torch().spawn(role, **fields)
    click.echo(f"{spawned.agent_id} is ready on {spawned.node}", err=True)
    as_json_or_line(json_wanted, {"agent_id": spawned.agent_id, "node": spawned.node}, str(spawned.agent_id))


@click.command()
@click.argument("agent_id", metavar="AGENT", type=AGENT, required=False)
@click.option("--now", is_flag=True, help="Interrupt its task and put it back into its queue.")
@click.option("--hand-over", is_flag=True, help="Hand its task over to another agent of its role.")
@click.option("--note", default="", help="Why, and what a successor should know.")
@click.option("--timeout", type=Duration(or_zero=True), help="Stop waiting after this time; the agent still retires.")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@JSON
def retire(
    agent_id: str | None,
    now: bool,
    hand_over: bool,
    note: str,
    timeout: float | None,
    no_wait: bool,
    json_wanted: bool,
) -> None:
    """End AGENT (default: this pane's agent): it finishes its task and takes no new one, then its pane is closed."""
    own = caller().agent
    retiring = agent_id or own
    if retiring is None:
        raise click.UsageError("name the AGENT to retire: this is not an agent's pane")
    if now and hand_over:
        raise click.UsageError("use --now or --hand-over, not both")
    leave = RetireMode.NOW if now else RetireMode.HAND_OVER if hand_over else RetireMode.FINISH
    if retiring == own or no_wait:  # its own task is what runs this command
        Torch().retire(retiring, leave=leave, note=note, wait=False)
        line = f"{retiring} takes no new tasks and retires" + (" when this one is over" if retiring == own else "")
        as_json_or_line(json_wanted, {"retiring": retiring}, line)
        return
    with waiting(f"waiting until {retiring} has retired"):
        report = Torch().retire(retiring, leave=leave, note=note, timeout=timeout)
    assert report is not None
    if json_wanted:
        as_json(report)
        return
    click.echo(f"{retiring} has retired on {report.node}; its last screen and its notes are in {report.file} there")
    _print_left(report)


@click.command(cls=VisibleCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--list", "listed", is_flag=True, help="List the agents.")
@click.option("--status", "status", is_flag=True, help="Print the system's health as JSON; exit code 1 if it is down.")
@click.option("--spawn", nargs=2, metavar="ROLE SKILLS", help="Start an agent of this role with these skills.")
@click.pass_context
def registry(ctx: click.Context, listed: bool, status: bool, spawn: tuple[str, str] | None) -> None:
    """List the agents, print the system's health, or start an agent."""
    if listed + status + bool(spawn) != 1:
        raise click.UsageError("use one of --list, --status and --spawn ROLE SKILLS")
    try:
        if listed:
            ctx.invoke(agents)
        elif spawn:
            role, skills = spawn
            click.echo(Torch().spawn(role, skills.replace(",", " ").split()).agent_id)
        else:
            health = perform(fleet.health, Nothing())
            as_json(health)
            sys.exit(int(health.status is Health.DOWN))
    except TorchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
