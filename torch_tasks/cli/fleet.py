"""``torch-tasks pause | resume | stop | start | budget | git | monitor``."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.text import Text

from torch_tasks.cli.names import AGENT, ROLE
from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import ago, as_json, as_table, local, plain, print_styled
from torch_tasks.cli.tables import Column, cut, wrapped
from torch_tasks.client import Torch
from torch_tasks.errors import BrokerUnreachable, InvalidHold
from torch_tasks.link import perform
from torch_tasks.model.hold import EVERYBODY
from torch_tasks.model.options import OneOf
from torch_tasks.monitoring.flow import FlowEvent, FlowKind
from torch_tasks.operations import agents as operations_on_agents
from torch_tasks.operations import fleet as operations
from torch_tasks.orchestration.holds import HoldReport
from torch_tasks.store.git_reports import GitReport, TreeReport
from torch_tasks.visible_text import escaped, one_line

_ROLE = click.option("--role", type=ROLE, help="All agents of this role, also those started later.")
_ALL = click.option("--all", "everybody", is_flag=True, help="All agents, also those started later.")
_FLEET = click.option("--all", "everywhere", is_flag=True, help="The whole fleet, on every machine.")
_HERE = click.option("--here", is_flag=True, help="This machine alone; needs no broker.")
_REASON = click.option("--reason", default="", help="The reason, shown wherever a task or a message waits.")


@click.command()
@click.argument("agent_id", metavar="[AGENT]", type=AGENT, required=False)
@_ROLE
@_ALL
@_REASON
@click.option("--interrupt", is_flag=True, help="Interrupt their tasks and put them back into their queues.")
@JSON
def pause(
    agent_id: str | None, role: str | None, everybody: bool, reason: str, interrupt: bool, json_wanted: bool
) -> None:
    """Keep AGENT, all of a role, or all from taking new tasks. Running tasks go on; messages but emergencies wait."""
    report = Torch().pause(agent_id, role=role, everybody=everybody, reason=reason, interrupt=interrupt)
    _print_answers("paused", report, json_wanted)


@click.command()
@click.argument("agent_id", metavar="[AGENT]", type=AGENT, required=False)
@_ROLE
@_ALL
@_REASON
@JSON
def resume(agent_id: str | None, role: str | None, everybody: bool, reason: str, json_wanted: bool) -> None:
    """Lift the pause that `pause` with the same arguments set; print the pauses that remain."""
    report = Torch().resume(agent_id, role=role, everybody=everybody, reason=reason)
    _print_answers("resumed", report, json_wanted)
    if json_wanted:
        return
    concerned = {*report.confirmed, *report.silent} if report.scope != EVERYBODY else None
    for info in Torch().agents(online=True):
        if info.hold_reason and (concerned is None or info.agent_id in concerned):
            click.echo(f"still {info.agent_id}: {info.hold_reason}")


@click.command()
@_FLEET
@_HERE
@_REASON
@JSON
def stop(everywhere: bool, here: bool, reason: str, json_wanted: bool) -> None:
    """Stop all agents, with the broker or without: running tasks are interrupted and go back to their queues.

    Writes the file STOP into the state folder of this machine, and with --all of every other one that the broker
    reaches. While a machine has that file, even one made by hand, it begins no task.
    """
    _require_one(everywhere, here)
    report = Torch().stop(reason, here=here)
    _print_answers("stopped", report, json_wanted)
    if not json_wanted:
        click.echo(f"{report.file} is written; 'torch-tasks start {_scope_option(here)}' lifts it")
    if report.unreached:
        raise BrokerUnreachable(
            f"only this machine is stopped; the others stop once the broker is back: {report.unreached}"
        )


@click.command()
@_FLEET
@_HERE
@_REASON
@JSON
def start(everywhere: bool, here: bool, reason: str, json_wanted: bool) -> None:
    """Lift the stop that `stop` with the same option set."""
    _require_one(everywhere, here)
    report = Torch().start(reason, here=here)
    _print_answers("started", report, json_wanted)
    if not json_wanted and (left := report.still):
        click.echo(f"still stopped here, {left}: 'torch-tasks start {_scope_option(not left.fleet)}' lifts it")


def _require_one(everywhere: bool, here: bool) -> None:
    if everywhere == here:
        raise InvalidHold("use --all for the whole fleet, or --here for this machine alone")


def _scope_option(here: bool) -> str:
    return "--here" if here else "--all"


def _print_answers(done: str, report: HoldReport, json_wanted: bool) -> None:
    if json_wanted:
        as_json(report)
        return
    click.echo(f"{done}: {report.scope}, {report.hold}")
    if report.confirmed:
        click.echo(f"confirmed by {', '.join(report.confirmed)}")
    if report.silent:
        click.echo(f"no answer yet from {', '.join(report.silent)}: they read it with their next heartbeat")


@click.command()
@click.argument("account", required=False)
@JSON
def budget(account: str | None, json_wanted: bool) -> None:
    """Show how much of ACCOUNT (default: all) is used, its limits, and when each count starts over."""
    lines = perform(operations.budgets, operations.OfAccount.build(account=account))
    if json_wanted:
        as_json([plain(line) | {"exhausted": line.exhausted} for line in lines])
        return
    rows = [
        (
            line.account,
            line.name.replace("_", " "),
            _amount(line.used),
            _amount(line.limit) if line.limit else "none",
            local(line.until),
            "used up" if line.exhausted else "",
        )
        for line in lines
    ]
    as_table(_BUDGET_COLUMNS, rows)


def _amount(counted: int | float) -> str:
    return f"{counted:,.2f}" if isinstance(counted, float) else f"{counted:,}"


_BUDGET_COLUMNS = (
    Column("ACCOUNT"),
    Column("BUDGET"),
    Column("USED"),
    Column("LIMIT"),
    Column("UNTIL"),
    wrapped("", least=8),
)
_TREE_COLUMNS = (
    Column("AGENT"),
    Column("ROLE", spare=6),
    wrapped("BRANCH", least=16),
    wrapped("UNCOMMITTED", least=11),
    cut("LAST COMMIT", least=18),
    cut("LAST TAG", least=10, spare=4),
    wrapped("TREE", least=16, spare=3),
    Column("LOOKED AT", spare=5),
)
_LONGEST_SUBJECT = 60


@click.group()
def git() -> None:
    """Show the state of the agents' git trees."""


@git.command()
@click.option("--agent", "agents", multiple=True, type=AGENT, help="Only this agent's trees; repeat for more.")
@JSON
def report(agents: tuple[str, ...], json_wanted: bool) -> None:
    """Show what the nodes found when they last looked at their agents' git trees.

    Lists the agents whose workdir is a git tree and whose role has a policy in git.toml that asks for it.
    """
    reports = perform(operations_on_agents.trees, operations_on_agents.Trees.build(agents=agents))
    if json_wanted:
        as_json(reports)
        return
    as_table(_TREE_COLUMNS, [_tree_row(one, tree) for one in reports for tree in one.trees])
    for line in (line for one in reports for line in _remarks(one)):
        click.echo(line)


def _tree_row(report: GitReport, tree: TreeReport) -> tuple[str, ...]:
    waits = f"{tree.uncommitted} since {ago(tree.uncommitted_since)}" if tree.uncommitted else ""
    made = tree.last_commit
    commit = f"{made.id} {ago(made.at)}: {one_line(made.subject, _LONGEST_SUBJECT)}" if made else ""
    branch = one_line(tree.branch, _LONGEST_SUBJECT) if tree.branch else "(no branch)"
    place = one_line(tree.tree, 200)
    return report.agent, report.role, branch, waits, commit, tree.last_tag or "", place, ago(report.looked_at)


def _remarks(report: GitReport) -> Iterator[str]:
    """One line for each trouble, and for each file that was left out of a commit."""
    if report.trouble:
        yield f"{report.agent}: {one_line(report.trouble, 1000)}"
    for tree in report.trees:
        if tree.trouble:
            yield f"{report.agent}: not committed: {one_line(tree.trouble, 1000)}"
        for left in tree.left_out:
            yield f"{report.agent}: left out: {one_line(left.path, 200)}: {left.why}"
        if tree.left_out_more:
            yield f"{report.agent}: left out: {tree.left_out_more} more"


_COLOURS = {FlowKind.MESSAGES: "cyan", FlowKind.TASKS: "green", FlowKind.AGENTS: "magenta", FlowKind.BROKER: "yellow"}
_LONGEST = 300
_LOOK_SECONDS = 1.0
"""How often the monitor looks whether anybody reads what it prints."""


@click.command()
@click.option(
    "--agent", "agents", multiple=True, type=AGENT, help="Only events from or about this agent; repeat for more."
)
@click.option("--role", type=ROLE, help="Only events about agents of this role.")
@click.option(
    "--only",
    "kinds",
    multiple=True,
    type=OneOf(["messages", "tasks", "agents"]),
    help="Only events about these; repeat for more.",
)
@click.option("--for", "seconds", type=Duration(or_zero=True), help="End after this time, as 90 or 5m.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object per line, for programs.")
def monitor(
    agents: tuple[str, ...], role: str | None, kinds: tuple[str, ...], seconds: float | None, json_wanted: bool
) -> None:
    """Show messages, tasks and agents as they change, until Ctrl-C; what was lost is in red.

    Exit code 130 after Ctrl-C, else 0.
    """
    wanted = {"agents": agents, "role": role, "kinds": kinds}
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    with _end_quietly():
        page = perform(operations.events, operations.AwaitEvents.build(**wanted))
        click.echo("watching the fleet; Ctrl-C ends it", err=True)
        while (left := deadline - time.monotonic()) > 0:
            asked = operations.AwaitEvents.build(**wanted, after=page.place, seconds=min(left, _LOOK_SECONDS))
            page = perform(operations.events, asked)
            if page.missed:
                click.echo("some events were missed", err=True)
            for event in page.events:
                _print_event(event, json_wanted)
            _require_reader()


def _print_event(event: FlowEvent, json_wanted: bool) -> None:
    if json_wanted:
        click.echo(escaped(event.model_dump_json()))
    else:
        print_styled(_shown(event))


def _shown(event: FlowEvent) -> Text:
    who = " → ".join(filter(None, (event.sender, event.agent)))
    line = Text(f"{event.at.astimezone():%H:%M:%S.%f}"[:-3], style="dim")
    line.append(f"  {event.kind:<8}  ", style=_COLOURS[event.kind])
    line.append(f"{event.what:<12}", style="bold red" if event.lost else "bold")
    line.append(f"  {who}" if who else "")
    line.append(f"  {one_line(event.text, _LONGEST)}" if event.text else "")
    line.append(f"  ({one_line(event.note, _LONGEST)})" if event.note else "", style="dim")
    line.append(f"  {event.id}" if event.id else "", style="dim")
    return line


@contextmanager
def _end_quietly() -> Iterator[None]:
    """End without an error message on Ctrl-C, on SIGTERM, and when the reader of the output goes away."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(0)


def _require_reader() -> None:
    """Raise BrokenPipeError if the reader of our output is gone, instead of at the next event."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if any(happened & select.POLLERR for _, happened in output.poll(0)):
        raise BrokenPipeError
