"""``torch-tasks monitor``: the flow of messages, tasks and agents, for people and programs."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from torch_tasks.broker.connection import broker_errors
from torch_tasks.cli.duration import Duration
from torch_tasks.cli.output import one_line
from torch_tasks.fleet import fleet
from torch_tasks.monitoring.flow import Event, Flow, Kind
from torch_tasks.store.channels import role_named

_COLOURS = {Kind.MESSAGES: "cyan", Kind.TASKS: "green", Kind.AGENTS: "magenta", Kind.BROKER: "yellow"}
_LONGEST = 300


@click.command()
@click.option("--agent", "agents", multiple=True, help="Only what this agent says, gets, does or is; repeat for more.")
@click.option("--role", help="Only what agents of this role get, do or are.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["messages", "tasks", "agents"]), help="Only these.")
@click.option("--for", "seconds", type=Duration(or_zero=True), help="End after this time, as 90 or 5m.")
@click.option("--json", "json_wanted", is_flag=True, help="For programs: one JSON object per line.")
def monitor(
    agents: tuple[str, ...], role: str | None, kinds: tuple[str, ...], seconds: float | None, json_wanted: bool
) -> None:
    """Show what is said, what becomes of tasks, and who comes and goes, until Ctrl-C. In red: what was lost.

    Exit code 130 after Ctrl-C, else 0.
    """
    console = Console(highlight=False, soft_wrap=True)
    with _ends_well():
        shared = fleet()
        with broker_errors():
            flow = Flow(shared)
        click.echo(f"watching {shared.settings.broker()}; Ctrl-C ends it", err=True)
        deadline = None if seconds is None else time.monotonic() + seconds
        for event in flow.events(deadline):
            if event is None:
                _require_reader()
            elif _is_wanted(event, agents, role, kinds):
                click.echo(event.model_dump_json() if json_wanted else _rendered(console, event))


def _is_wanted(event: Event, agents: tuple[str, ...], role: str | None, kinds: tuple[str, ...]) -> bool:
    if event.kind is Kind.BROKER:
        return True
    return (
        (not kinds or event.kind in kinds)
        and (role is None or event.role == role_named(role))
        and (not agents or event.agent in agents or event.sender in agents)
    )


def _rendered(console: Console, event: Event) -> str:
    """The line with its colours, if there is a terminal; rich itself would end with an error for a broken pipe."""
    with console.capture() as captured:
        console.print(_shown(event), end="")
    return captured.get()


def _shown(event: Event) -> Text:
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
def _ends_well() -> Iterator[None]:
    """Ctrl-C, SIGTERM, and a reader that goes away are all ways to end."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(0)


def _leave(*_: Any) -> None:
    sys.exit(0)


def _require_reader() -> None:
    """Nobody would tell us before the next event that our reader is gone."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if any(happened & select.POLLERR for _, happened in output.poll(0)):
        raise BrokenPipeError
