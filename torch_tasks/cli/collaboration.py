"""``torch-tasks note | claim | release | claims | help-wanted | team``: how agents work together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from torch_tasks.cli.names import ROLE, SKILL
from torch_tasks.cli.options import JSON, Duration, text_of
from torch_tasks.cli.output import ago, as_json_or_line, as_json_or_table, local, shown, waiting
from torch_tasks.cli.tables import Column, state, wrapped
from torch_tasks.facades.collaboration import Claims, Notes, ask_for_help, form_team
from torch_tasks.machine.project import project_of
from torch_tasks.store.collaboration import Claim, Note

_NOTE_COLUMNS = (Column("NOTED"), Column("BY", spare=1), wrapped("TAGS", least=8, spare=2), wrapped("FACT"))
_CLAIM_COLUMNS = (wrapped("RESOURCE"), Column("BY"), Column("TASK"), Column("UNTIL", spare=1), Column("SINCE", spare=2))
_TEAM_COLUMNS = (Column("AGENT"), Column("ROLE"), state(), wrapped("BRINGS"))
_BY = click.option("--by", metavar="WHO", help="The author or owner (default: this pane's agent, or operator).")
_PROJECT = click.option("--project", metavar="NAME", help="The project (default: the git tree of this folder).")
_LIMIT = click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")


@click.group()
def note() -> None:
    """Record and search facts about a project."""


def _notes(project: str | None) -> Notes:
    return Notes(project or project_of(Path.cwd()))


@note.command()
@click.argument("fact", nargs=-1, required=True)
@_PROJECT
@click.option("--tag", "tags", multiple=True, help="A tag to find it by; repeat for more.")
@_BY
@JSON
def add(fact: tuple[str, ...], project: str | None, tags: tuple[str, ...], by: str | None, json_wanted: bool) -> None:
    """Record a FACT. `-` reads it from standard input."""
    noted = _notes(project).add(text_of(fact), tags, by=by)
    as_json_or_line(json_wanted, noted, f"noted for {noted.project}")


@note.command()
@click.argument("words", nargs=-1, required=True)
@_PROJECT
@_LIMIT
@JSON
def search(words: tuple[str, ...], project: str | None, limit: int, json_wanted: bool) -> None:
    """Show the notes that contain all of these WORDS; exit code 1 if there are none."""
    found = _notes(project).search(" ".join(words), limit)
    _show(found, json_wanted)
    sys.exit(0 if found else 1)


@note.command("list")
@_PROJECT
@_LIMIT
@JSON
def list_(project: str | None, limit: int, json_wanted: bool) -> None:
    """Show the latest notes."""
    _show(_notes(project).all(limit), json_wanted)


def _show(notes: list[Note], json_wanted: bool) -> None:
    def row(note: Note) -> tuple[str, ...]:
        return ago(note.at), note.by, " ".join(note.tags), note.fact

    as_json_or_table(json_wanted, notes, _NOTE_COLUMNS, row)


@click.command()
@click.argument("resource")
@click.option("--for", "seconds", type=Duration(), help="For how long, as 30m (default: as long as the task runs).")
@click.option("--wait", type=Duration(), help="How long to wait until it is free.")
@_BY
@JSON
def claim(resource: str, seconds: float | None, wait: float | None, by: str | None, json_wanted: bool) -> None:
    """Claim RESOURCE: a folder, `port:8080`, any name. If another holds it, print who, and exit with code 1."""
    with waiting(f"waiting for {resource}"):
        claimed = Claims().claim(resource, seconds, wait=wait or 0.0, by=by)
    as_json_or_line(json_wanted, claimed, f"{claimed.resource} is claimed by {claimed.words}")


@click.command()
@click.argument("resource")
@_BY
@JSON
def release(resource: str, by: str | None, json_wanted: bool) -> None:
    """Release RESOURCE."""
    released = Claims().release(resource, by=by)
    line = f"{resource} is free" if released else f"{resource} was not claimed"
    as_json_or_line(json_wanted, {"resource": resource, "released": bool(released)}, line)


@click.command()
@JSON
def claims(json_wanted: bool) -> None:
    """List the claimed resources, their owners, and until when they are claimed."""

    def row(held: Claim) -> tuple[str, ...]:
        until = local(held.until) if held.until else "task's end"
        return held.resource, held.by, shown(held.task or ""), until, ago(held.since)

    as_json_or_table(json_wanted, Claims().all(), _CLAIM_COLUMNS, row)


@click.command()
@click.option(
    "--skill", "skills", multiple=True, type=SKILL, required=True, help="A skill the team must have; repeat for more."
)
@JSON
def team(skills: tuple[str, ...], json_wanted: bool) -> None:
    """Find agents that together have all of these skills: free ones first, as few as possible."""
    as_json_or_table(
        json_wanted,
        form_team(skills),
        _TEAM_COLUMNS,
        lambda one: (one.agent.agent_id, one.agent.role, one.agent.state, " ".join(one.skills)),
    )


@click.command("help-wanted")
@click.argument("text", nargs=-1, required=True)
@click.option("--skill", "skills", multiple=True, type=SKILL, help="A skill the helper must have; repeat for more.")
@click.option("--role", type=ROLE, help="Only agents of this role, and at last a manager.")
@click.option("--expires", type=Duration(), default="10m", show_default=True, help="How long each agent has to answer.")
@click.option("--from", "sender", metavar="WHO", help="The asking agent (default: this pane's agent, or operator).")
@JSON
def help_wanted(text: tuple[str, ...], json_wanted: bool, **how: Any) -> None:
    """Ask one able agent after the other for help and print the answer of the first that accepts."""
    with waiting("waiting for an agent that accepts"):
        reply = ask_for_help(text_of(text), **how)
    as_json_or_line(json_wanted, reply, f"{reply.message.sender}: {reply.message.message}")
