"""``torch-tasks spawn | retire``: for people, and for agents that want help."""

from __future__ import annotations

import os

import click

from torch_tasks.cli.duration import Duration
from torch_tasks.cli.output import waiting


@click.command()
@click.argument("role")
@click.option("--skill", "skills", multiple=True, help="A skill it shall have; repeat for more.")
@click.option("--kind", default="shell", show_default=True, help="The kind of agent program.")
@click.option("--node", help="The machine it shall be on (default: the one with most room).")
@click.option("--label", "labels", multiple=True, help="What its machine must have, as `gpu`; repeat for more.")
@click.option("--temporary", is_flag=True, help="It retires when it has had nothing to do for a while.")
@click.option("--workdir", type=click.Path(), help="The folder it starts in, on its machine.")
@click.option("--fresh", is_flag=True, help="Each of its tasks is begun by a new program.")
@click.option("--parent", metavar="AGENT", help="The agent it belongs to (default, in a pane: the pane's agent).")
@click.option("--id", "agent_id", help="Its id (default: the role and a number).")
@click.option("--memory", metavar="SIZE", help="The most memory its terminal may use, as 2G.")
@click.option("--cpu", type=float, help="The most processors it may use, as 1.5.")
@click.option("--processes", type=int, help="The most processes it may have.")
def spawn(
    role: str,
    skills: tuple[str, ...],
    kind: str,
    node: str | None,
    labels: tuple[str, ...],
    temporary: bool,
    workdir: str | None,
    fresh: bool,
    parent: str | None,
    agent_id: str | None,
    memory: str | None,
    cpu: float | None,
    processes: int | None,
) -> None:
    """Start an agent of this ROLE somewhere in the fleet and print its id, once it is ready."""
    from torch_tasks.client import Torch
    from torch_tasks.model.agent import Lifetime

    with waiting(f"starting a {role}"):
        spawned = Torch().spawn(
            role,
            skills,
            kind,
            node=node,
            labels=labels,
            lifetime=Lifetime.TEMPORARY if temporary else Lifetime.PERMANENT,
            workdir=workdir,
            fresh=fresh,
            parent=parent,
            agent_id=agent_id,
            memory=memory,
            cpu=cpu,
            processes=processes,
        )
    click.echo(f"{spawned.agent_id} is ready on {spawned.node}", err=True)
    click.echo(spawned.agent_id)


@click.command()
@click.argument("agent_id", metavar="AGENT", required=False)
@click.option("--now", is_flag=True, help="Put its task back, for whoever is able, and do not wait for it.")
@click.option("--hand-over", is_flag=True, help="Have another agent of its role go on with its task.")
@click.option("--note", default="", help="Why, and what a successor should know.")
@click.option("--timeout", type=Duration(or_zero=True), help="Wait so long; it retires all the same.")
@click.option("--no-wait", is_flag=True, help="Do not wait for its end.")
def retire(agent_id: str | None, now: bool, hand_over: bool, note: str, timeout: float | None, no_wait: bool) -> None:
    """Have AGENT end: no new tasks, then its pane and its place in the fleet. In a pane: the pane's own agent."""
    from torch_tasks.client import Torch
    from torch_tasks.model.agent import RetireMode

    own = os.environ.get("TORCH_AGENT_ID")
    whom = agent_id or own
    if whom is None:
        raise click.UsageError("say which AGENT")
    if now and hand_over:
        raise click.UsageError("say --now or --hand-over, not both")
    leave = RetireMode.NOW if now else RetireMode.HAND_OVER if hand_over else RetireMode.FINISH
    if whom == own or no_wait:  # its own task is what runs this command
        Torch().retire(whom, leave=leave, note=note, wait=False)
        click.echo(f"{whom} takes no new tasks and retires" + (" when this one is over" if whom == own else ""))
        return
    with waiting(f"{whom} retires"):
        report = Torch().retire(whom, leave=leave, note=note, timeout=timeout)
    assert report is not None
    click.echo(f"{whom} has retired on {report.node}; its last screen and its notes are in {report.file} there")
    if report.tasks:
        click.echo(f"tasks it left: {', '.join(report.tasks)}")
    if report.messages:
        click.echo(f"messages it did not read, now dead: {', '.join(report.messages)}")
