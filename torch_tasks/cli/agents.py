"""``torch-tasks agents | agent``."""

from __future__ import annotations

import json
from typing import Any

import click

from torch_tasks.cli.ids import shown
from torch_tasks.cli.output import ago, as_json, as_table, plain
from torch_tasks.client import Torch
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.node import KeptAgent, KeptState


@click.command()
@click.option("--role", help="Only of this role.")
@click.option("--skill", "skills", multiple=True, help="Only with this skill; repeat for more, all are required.")
@click.option("--online", is_flag=True, help="Only those that are there.")
@click.option("--json", "json_wanted", is_flag=True, help="For programs.")
def agents(role: str | None, skills: tuple[str, ...], online: bool, json_wanted: bool) -> None:
    """List the agents."""
    found = Torch().agents(role=role, skills=skills, online=True if online else None)
    if json_wanted:
        as_json(found)
        return
    kept = {one.agent_id: (node.name, one) for node in Torch().nodes() for one in node.agents}
    headings = ("ID", "ROLE", "SKILLS", "KIND", "NODE", "STATE", "LOAD", "SUCCESS", "TASK", "HEARD OF")
    as_table(headings, [_row(info, kept.get(info.agent_id)) for info in found])
    for agent_id, (node, one) in kept.items():
        if one.state is KeptState.QUARANTINED:
            click.echo(f"{agent_id} on {node} is in quarantine: {one.reason}", err=True)


def _row(info: AgentInfo, kept: tuple[str, KeptAgent] | None) -> tuple[Any, ...]:
    state = str(info.state if info.online else info.status)
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


@click.command()
@click.argument("agent_id")
@click.option("--release", is_flag=True, help="Try it again, if its node left it down after too many crashes.")
@click.option("--json", "json_wanted", is_flag=True, help="For programs.")
def agent(agent_id: str, release: bool, json_wanted: bool) -> None:
    """Show one agent."""
    if release:
        Torch().release(agent_id)
        click.echo(f"{agent_id} is started again")
        return
    info = Torch().agent(agent_id)
    used = Torch().resources(agent_id) if info.online else None
    if json_wanted:
        click.echo(json.dumps(plain(info) | {"resources": plain(used) if used else None}, indent=2, ensure_ascii=False))
        return
    known = info.performance_metrics
    ended = f"{known.succeeded} succeeded, {known.failed} failed, in {known.seconds:.0f} s"
    told = {"paused": info.paused, "stopped": info.stopped, "performance_metrics": ended}
    for name, value in (info.model_dump(mode="json") | told).items():
        click.echo(f"{name + ':':<21}{','.join(value) if isinstance(value, list) else '' if value is None else value}")
    for name, said in used.lines() if used else ():
        click.echo(f"{name + ':':<21}{said}")
