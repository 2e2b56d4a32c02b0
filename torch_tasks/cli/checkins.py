"""``torch-tasks checkin``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from torch_tasks.checkins.book import AcceptedCheckin
from torch_tasks.cli.names import AGENT, CHECKIN, ROLE, SKILL
from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import as_fields, as_json, as_json_or_line, as_json_or_table, local
from torch_tasks.cli.tables import Column, Fit, cut, state, wrapped
from torch_tasks.errors import InvalidCheckin
from torch_tasks.facades.checkins import Checkins
from torch_tasks.model.checkin import CheckinRecord, Fire
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.options import OneOf
from torch_tasks.visible_text import one_line

_COLUMNS = (
    Column("CHECKIN"),
    Column("FOR"),
    state(),
    Column("NEXT"),
    wrapped("TIMES", least=14, spare=1),
    Column("RUNS", spare=2),
    Column("BY", spare=3),
    cut("NOTE"),
)
_FIRE_COLUMNS = (
    Column("TIME"),
    Column("OUTCOME", Fit.WRAPPED, 12, is_state=True),
    Column("LATE", spare=1),
    wrapped("EVIDENCE", least=34),
    wrapped("NOTE", spare=2),
)
_ID = click.argument("checkin_id", metavar="CHECKIN", type=CHECKIN)
_TARGETS = (
    click.option(
        "--role", type=ROLE, help="For all agents of this role; with --task, the agent that takes it has this role."
    ),
    click.option("--project", metavar="FOLDER", help="For all agents that work in this folder, or one of this name."),
    click.option("--task", is_flag=True, help="The note is the prompt of a new task each time."),
    click.option("--agent", type=AGENT, help="With --task: only this agent takes it."),
    click.option(
        "--skill", "skills", multiple=True, type=SKILL, help="With --task: only an agent with this skill; repeatable."
    ),
    click.option("--workdir", help="With --task: the folder to work in."),
    click.option("--timeout", type=Duration(), help="With --task: interrupt its agent after this time."),
    click.option("--check", help="With --task: a command that checks the result."),
)
_TASK = ("agent", "skills", "workdir", "timeout", "check")
_PACE = (
    click.option("--when", type=OneOf(["idle", "now", "skip"]), help="If the agent is busy (default: idle)."),
    click.option(
        "--misfire",
        type=OneOf(["once", "skip", "all"]),
        help="What to do about times that passed while no beat ran (default: once).",
    ),
    click.option("--jitter", type=Duration(or_zero=True), help="Fire up to this much later, at random."),
    click.option("--until", "ends", metavar="TIME", help="The last moment at which it may fire."),
    click.option("--max-runs", type=int, help="End it after this many times."),
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _with_target_and_pace(command: _Command) -> _Command:
    for option in reversed((*_TARGETS, *_PACE)):
        command = option(command)
    return command


def _by_receiver(target: str | None, how: dict[str, Any]) -> dict[str, Any]:
    """The options as the arguments of :class:`Checkins`: the receiver, and the rest."""
    role, project, task = how.pop("role"), how.pop("project"), how.pop("task")
    fields = {name: value for name in _TASK if (value := how.pop(name))}
    if not task:
        if fields:
            raise InvalidCheckin(f"{', '.join(sorted(fields))}: only for a task; add --task, or drop the option")
        return {"target": target, "role": role, "project": project, **how}
    if project or (target and "agent" in fields):
        raise InvalidCheckin(
            "a task goes to one agent, or to any with the role and skills: drop --project, or one of AGENT and --agent"
        )
    fields |= {name: value for name, value in (("agent", target), ("role", role)) if value}
    return {"task": {name: list(value) if name == "skills" else value for name, value in fields.items()}, **how}


@click.group()
def checkin() -> None:
    """Schedule notes: for an agent, a role, a project, or as tasks."""


@checkin.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="[WHEN] NOTE [AGENT]", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--every", metavar="INTERVAL", help="Repeat, as `30m` or `2 hours from 9:00`; instead of WHEN.")
@click.option("--cron", metavar="LINE", help="Repeat by a line of cron, with or without a time zone; instead of WHEN.")
@_with_target_and_pace
@click.option("--id", help="The check-in's id; adding the same id twice makes one check-in.")
@click.option("--from", "sender", metavar="WHO", help="The author (default: this pane's agent, or operator).")
@JSON
def add(
    words: tuple[str, ...], every: str | None, cron: str | None, sender: str | None, json_wanted: bool, **how: Any
) -> None:
    """Schedule NOTE at WHEN for AGENT (default: this pane's agent).

    WHEN is a number of minutes (30, 0.1), or "in 2 hours", "14:30", "tomorrow 9:00", "2026-12-01 09:00 Europe/Berlin";
    or, again and again, "every 30m", "every 2 hours from 9:00", "weekdays 9:00", "mondays 8:30", "*/15 * * * *". `-`
    reads NOTE from standard input.
    """
    when, note, target = _read_words(words, every, cron)
    _print_accepted(Checkins(sender).add(when, note, **_by_receiver(target, how)), json_wanted)


def _read_words(words: tuple[str, ...], every: str | None, cron: str | None) -> tuple[str, str, str | None]:
    """When the note is due, its text, and its receiver."""
    if every and cron:
        raise InvalidCheckin("--every and --cron: use one of them")
    instead = f"every {every.removeprefix('every ')}" if every else cron
    when, *rest = words if instead is None else (instead, *words)
    if not 1 <= len(rest) <= 2:
        wanted = "WHEN NOTE [AGENT]" if instead is None else "NOTE [AGENT]"
        raise InvalidCheckin(f"say {wanted}, each in quotes if it has spaces: there are {len(words)} words")
    note, target = rest[0], rest[1] if len(rest) == 2 else None
    return when, sys.stdin.read() if note == "-" else note, target


def _print_accepted(kept: AcceptedCheckin, json_wanted: bool) -> None:
    clock = f", {kept.zone}" if kept.zone else ""
    first = f"{local(kept.slot)}{clock}" if kept.slot else str(kept.state)
    line = f"check-in {kept.checkin.id} for {kept.checkin.target}: {kept.checkin.schedule}; next {first}"
    as_json_or_line(json_wanted, kept, line)
    for warning in kept.warnings:
        click.echo(f"Note: {warning}", err=True)


@checkin.command("list")
@click.option("--all", "all_wanted", is_flag=True, help="List ended ones as well.")
@JSON
def list_(all_wanted: bool, json_wanted: bool) -> None:
    """List the check-ins, the next one first."""
    records = [record for record in Checkins().list() if all_wanted or record.state != "ended"]
    as_json_or_table(json_wanted, records, _COLUMNS, _row)


def _row(record: CheckinRecord) -> tuple[Any, ...]:
    asked = record.checkin
    note = one_line(asked.note.strip(), 60)
    return asked.id, asked.target, record.state, local(record.slot), asked.schedule, record.runs, asked.sender, note


@checkin.command()
@_ID
@JSON
def show(checkin_id: str, json_wanted: bool) -> None:
    """Show one check-in: its note, its next time, and what happened at the last one."""
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
        ("next", local(record.slot)),
        ("until", local(asked.ends)),
        ("runs", f"{record.runs}" + (f" of {asked.max_runs}" if asked.max_runs else "")),
        ("jitter", describe_duration(asked.jitter) if asked.jitter else ""),
        ("busy", asked.when),
        ("missed", asked.misfire),
        ("last", _one_fire(record.last) if record.last else ""),
    ]
    as_fields(lines, 10)
    click.echo(f"\n{asked.note}")


@checkin.command()
@_ID
@click.option("--time", metavar="WHEN", help="The new WHEN, as for `add`.")
@click.option("--note", metavar="NOTE", help="The new text; `-` reads it from standard input.")
@click.option("--to", "target", metavar="AGENT", type=AGENT, help="The new receiver.")
@_with_target_and_pace
@JSON
def edit(
    checkin_id: str, time: str | None, note: str | None, target: str | None, json_wanted: bool, **how: Any
) -> None:
    """Change only the given fields of a check-in; what has fired already is not touched."""
    note = sys.stdin.read() if note == "-" else note
    fields = _by_receiver(target, how)
    if not any(value is not None for value in (time, note, *fields.values())):
        raise InvalidCheckin(f"nothing to change in {checkin_id}: give --time, --note, --to, …")
    _print_accepted(Checkins().change(checkin_id, time=time, note=note, **fields), json_wanted)


@checkin.command()
@_ID
@JSON
def pause(checkin_id: str, json_wanted: bool) -> None:
    """Suspend a check-in until it is resumed."""
    _print_state(Checkins().pause(checkin_id), json_wanted)


@checkin.command()
@_ID
@JSON
def resume(checkin_id: str, json_wanted: bool) -> None:
    """Resume a check-in, from its next time on."""
    _print_state(Checkins().resume(checkin_id), json_wanted)


def _print_state(record: CheckinRecord, json_wanted: bool) -> None:
    to_come = f", next {local(record.slot)}" if record.slot else ""
    as_json_or_line(json_wanted, record, f"check-in {record.checkin.id} {record.state}{to_come}")


@checkin.command()
@_ID
@JSON
def remove(checkin_id: str, json_wanted: bool) -> None:
    """Delete a check-in and its history; what has fired already still arrives."""
    Checkins().remove(checkin_id)
    click.echo(json.dumps({"removed": checkin_id}) if json_wanted else f"check-in {checkin_id} removed")


@checkin.command()
@_ID
@JSON
def run(checkin_id: str, json_wanted: bool) -> None:
    """Fire a check-in now, in addition to its times."""
    line = f"check-in {checkin_id} fires; 'torch-tasks checkin history {checkin_id}' shows the outcome"
    as_json_or_line(json_wanted, Checkins().run_now(checkin_id), line)


@checkin.command()
@_ID
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@JSON
def history(checkin_id: str, limit: int, json_wanted: bool) -> None:
    """Show the outcome of each time, the latest first, and who got which message."""

    def row(fire: Fire) -> tuple[str, ...]:
        return local(fire.slot), _outcome(fire), describe_duration(fire.late), _evidence(fire), fire.note

    fires = Checkins().history(checkin_id, limit)
    as_json_or_table(json_wanted, fires, _FIRE_COLUMNS, row)


def _one_fire(fire: Fire) -> str:
    return f"{local(fire.slot)} {_outcome(fire)}" + (f": {fire.note}" if fire.note else "")


def _outcome(fire: Fire) -> str:
    return f"{fire.outcome}" + (f" ({fire.count} times since {local(fire.since)})" if fire.count > 1 else "")


def _evidence(fire: Fire) -> str:
    """Who got which message, or which task was made, and its state."""
    receivers = [
        f"{one.agent}: {f'message {one.message} {one.state}' if one.message else 'nothing'}"
        + (f" ({one.note})" if one.note else "")
        for one in fire.receipts
    ]
    return "; ".join(receivers + ([f"task {fire.task} {fire.task_state}"] if fire.task else []))
