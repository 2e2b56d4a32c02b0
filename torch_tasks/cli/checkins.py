"""``torch-tasks checkin``: notes that come up at their times, for agents and by agents from their panes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

import click

from torch_tasks.checkins.book import AcceptedCheckin, Checkins
from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import as_json, as_table, one_line
from torch_tasks.errors import InvalidCheckin
from torch_tasks.model.checkin import CheckinRecord, Fire

_ID = click.argument("checkin_id", metavar="CHECKIN")
_TARGETS = (
    click.option("--role", help="For all agents of this role; with --task, the agent that takes it has this role."),
    click.option(
        "--project", metavar="FOLDER", help="For all agents that work in this folder, or in one of this name."
    ),
    click.option("--task", is_flag=True, help="Each time, the note becomes the prompt of a real task."),
    click.option("--agent", help="With --task: only this agent takes it."),
    click.option(
        "--skill", "skills", multiple=True, help="With --task: only an agent with this skill; repeat for more."
    ),
    click.option("--workdir", help="With --task: the folder to work in."),
    click.option("--timeout", type=Duration(), help="With --task: when its agent is interrupted."),
    click.option("--check", help="With --task: a command that decides afterwards."),
)
_TASK = ("agent", "skills", "workdir", "timeout", "check")
_OPTIONS = (
    click.option("--when", type=click.Choice(["idle", "now", "skip"]), help="If the receiver works (default: idle)."),
    click.option(
        "--misfire",
        type=click.Choice(["once", "skip", "all"]),
        help="What becomes of times that passed while no beat ran (default: once).",
    ),
    click.option("--jitter", type=Duration(or_zero=True), help="Up to so much later each time."),
    click.option("--until", "ends", metavar="TIME", help="Not any more after that."),
    click.option("--max-runs", type=int, help="Not more often than that."),
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _with_options(options: Iterable[Callable[[_Command], _Command]]) -> Callable[[_Command], _Command]:
    def add(command: _Command) -> _Command:
        for option in reversed(list(options)):
            command = option(command)
        return command

    return add


def _by_receiver(target: str | None, how: dict[str, Any]) -> dict[str, Any]:
    """What the options say, as the book takes it: whom it is for, and the rest."""
    role, project, task = how.pop("role"), how.pop("project"), how.pop("task")
    fields = {name: value for name in _TASK if (value := how.pop(name))}
    if not task:
        if fields:
            raise InvalidCheckin(f"{', '.join(sorted(fields))}: only for a task; say --task, or leave that out")
        return {"target": target, "role": role, "project": project, **how}
    if project or (target and "agent" in fields):
        raise InvalidCheckin("a task is for one agent, or for whoever has a role and skills: leave the rest out")
    fields |= {name: value for name, value in (("agent", target), ("role", role)) if value}
    return {"task": {name: list(value) if name == "skills" else value for name, value in fields.items()}, **how}


@click.group()
def checkin() -> None:
    """Notes that come up at their times: for an agent, a role, a project, or as tasks."""


@checkin.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="[WHEN] NOTE [AGENT]", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--every", metavar="INTERVAL", help="Again and again, as `30m` or `2 hours from 9:00`; instead of WHEN.")
@click.option(
    "--cron", metavar="LINE", help="As a line of cron says, with a time zone behind it or not; instead of WHEN."
)
@_with_options(_TARGETS)
@_with_options(_OPTIONS)
@click.option("--id", "checkin_id", help="The check-in's id; the same one twice is one check-in.")
@click.option("--from", "sender", metavar="WHO", help="Who asks for it (default: this pane's agent, or operator).")
@JSON
def add(
    words: tuple[str, ...],
    every: str | None,
    cron: str | None,
    checkin_id: str | None,
    sender: str | None,
    json_wanted: bool,
    **how: Any,
) -> None:
    """Have NOTE come up at WHEN: for AGENT, by default the one in whose pane this runs.

    WHEN is a number of minutes (30, 0.1), or "in 2 hours", "14:30", "tomorrow 9:00", "2026-12-01 09:00 Europe/Berlin";
    or, again and again, "every 30m", "every 2 hours from 9:00", "weekdays 9:00", "mondays 8:30", "*/15 * * * *". `-`
    reads NOTE from standard input.
    """
    when, note, target = _read_words(words, every, cron)
    _print_accepted(Checkins(sender).add(when, note, id=checkin_id, **_by_receiver(target, how)), json_wanted)


def _read_words(words: tuple[str, ...], every: str | None, cron: str | None) -> tuple[str, str, str | None]:
    """When it comes up, what it says, and who gets it."""
    if every and cron:
        raise InvalidCheckin("--every and --cron: say one of them")
    instead = f"every {every.removeprefix('every ')}" if every else cron
    when, *rest = words if instead is None else (instead, *words)
    if not 1 <= len(rest) <= 2:
        wanted = "WHEN NOTE [AGENT]" if instead is None else "NOTE [AGENT]"
        raise InvalidCheckin(f"say {wanted}, each in quotes if it has spaces: there are {len(words)} words")
    note, target = rest[0], rest[1] if len(rest) == 2 else None
    return when, sys.stdin.read() if note == "-" else note, target


def _print_accepted(kept: AcceptedCheckin, json_wanted: bool) -> None:
    if json_wanted:
        as_json(kept)
    else:
        clock = f", {kept.zone}" if kept.zone else ""
        first = f"{_local(kept.slot)}{clock}" if kept.slot else str(kept.state)
        click.echo(f"check-in {kept.checkin.id} for {kept.checkin.target}: {kept.checkin.schedule}; next {first}")
    for warning in kept.warnings:
        click.echo(f"Note: {warning}", err=True)


@checkin.command("list")
@click.option("--all", "all_wanted", is_flag=True, help="Those that have ended as well.")
@JSON
def list_(all_wanted: bool, json_wanted: bool) -> None:
    """List what is to come up, the next first."""
    records = [record for record in Checkins().list() if all_wanted or record.state != "ended"]
    if json_wanted:
        as_json(records)
        return
    headings = ("CHECKIN", "FOR", "STATE", "NEXT", "TIMES", "RUNS", "BY", "NOTE")
    as_table(headings, [_row(record) for record in records])


def _row(record: CheckinRecord) -> tuple[Any, ...]:
    asked = record.checkin
    note = one_line(asked.note.strip(), 60)
    return asked.id, asked.target, record.state, _local(record.slot), asked.schedule, record.runs, asked.sender, note


@checkin.command()
@_ID
@JSON
def show(checkin_id: str, json_wanted: bool) -> None:
    """Show one: what is asked for, when it comes up next, and what became of it last."""
    record = Checkins().get(checkin_id)
    if json_wanted:
        as_json(record)
        return
    asked = record.checkin
    lines = [
        ("checkin", asked.id),
        ("for", asked.target),
        ("by", asked.sender),
        ("state", record.state),
        ("times", asked.schedule),
        ("next", _local(record.slot)),
        ("until", _local(asked.ends)),
        ("runs", f"{record.runs}" + (f" of {asked.max_runs}" if asked.max_runs else "")),
        ("jitter", f"{asked.jitter:g} s" if asked.jitter else ""),
        ("busy", asked.when),
        ("missed", asked.misfire),
        ("last", _one_fire(record.last) if record.last else ""),
    ]
    for name, value in lines:
        if str(value):
            click.echo(f"{name + ':':<10}{value}")
    click.echo(f"\n{asked.note}")


@checkin.command()
@_ID
@click.option("--time", metavar="WHEN", help="As for `add`.")
@click.option("--note", metavar="NOTE", help="What comes up; `-` reads it from standard input.")
@click.option("--to", "target", metavar="AGENT", help="For this agent.")
@_with_options(_TARGETS)
@_with_options(_OPTIONS)
@JSON
def edit(
    checkin_id: str, time: str | None, note: str | None, target: str | None, json_wanted: bool, **how: Any
) -> None:
    """Change what is named; the rest stays. What has fired stays as it was."""
    note = sys.stdin.read() if note == "-" else note
    fields = _by_receiver(target, how)
    if not any(value is not None for value in (time, note, *fields.values())):
        raise InvalidCheckin("nothing is to be changed; say what: --time, --note, --to, …")
    _print_accepted(Checkins().change(checkin_id, time=time, note=note, **fields), json_wanted)


@checkin.command()
@_ID
@JSON
def pause(checkin_id: str, json_wanted: bool) -> None:
    """Have it not come up until it is resumed."""
    _print_state(Checkins().pause(checkin_id), json_wanted)


@checkin.command()
@_ID
@JSON
def resume(checkin_id: str, json_wanted: bool) -> None:
    """Have it come up again, from its next time on."""
    _print_state(Checkins().resume(checkin_id), json_wanted)


def _print_state(record: CheckinRecord, json_wanted: bool) -> None:
    if json_wanted:
        as_json(record)
    else:
        to_come = f", next {_local(record.slot)}" if record.slot else ""
        click.echo(f"check-in {record.checkin.id} {record.state}{to_come}")


@checkin.command()
@_ID
@JSON
def remove(checkin_id: str, json_wanted: bool) -> None:
    """Forget it and its history; what has fired arrives all the same."""
    Checkins().remove(checkin_id)
    click.echo(json.dumps({"removed": checkin_id}) if json_wanted else f"check-in {checkin_id} removed")


@checkin.command()
@_ID
@JSON
def run(checkin_id: str, json_wanted: bool) -> None:
    """Have it fire at once, beside its times."""
    fire = Checkins().run_now(checkin_id)
    if json_wanted:
        as_json(fire)
    else:
        click.echo(f"check-in {checkin_id} fires; 'torch-tasks checkin history {checkin_id}' tells what becomes of it")


@checkin.command()
@_ID
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@JSON
def history(checkin_id: str, limit: int, json_wanted: bool) -> None:
    """Tell what became of each of its times, the latest first, and who got what."""
    fires = Checkins().history(checkin_id, limit)
    if json_wanted:
        as_json(fires)
        return
    rows = [(_local(fire.slot), _outcome(fire), f"{fire.late:.1f} s", _evidence(fire), fire.note) for fire in fires]
    as_table(("TIME", "OUTCOME", "LATE", "EVIDENCE", "NOTE"), rows)


def _one_fire(fire: Fire) -> str:
    return f"{_local(fire.slot)} {_outcome(fire)}" + (f": {fire.note}" if fire.note else "")


def _outcome(fire: Fire) -> str:
    return f"{fire.outcome}" + (f" ({fire.count} times since {_local(fire.since)})" if fire.count > 1 else "")


def _evidence(fire: Fire) -> str:
    """Who got which message and how far it is; or the task, and how far that is."""
    receivers = [
        f"{one.agent}: {f'message {one.message} {one.state}' if one.message else 'nothing'}"
        + (f" ({one.note})" if one.note else "")
        for one in fire.receipts
    ]
    return "; ".join(receivers + ([f"task {fire.task} {fire.task_state}"] if fire.task else []))


def _local(moment: datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment else ""
