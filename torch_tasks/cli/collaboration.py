"""``torch-tasks note | claim | release | claims | help-wanted | team``: what agents know, share, and are together."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from torch_tasks.cli.options import JSON, Duration, text_of
from torch_tasks.cli.output import ago, as_json, as_table, waiting
from torch_tasks.communication.help_wanted import ask_for_help
from torch_tasks.machine.project import project_of
from torch_tasks.store.collaboration import Claims, Note, Notes

_BY = click.option("--by", metavar="WHO", help="In whose name (default: this pane's agent, or operator).")
_PROJECT = click.option("--project", metavar="NAME", help="Of which project (default: the git tree of this folder).")
_LIMIT = click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")


@click.group()
def note() -> None:
    """Facts about a project, for all who work on it later."""


def _notes(project: str | None) -> Notes:
    return Notes(project or project_of(Path.cwd()))


@note.command()
@click.argument("fact", nargs=-1, required=True)
@_PROJECT
@click.option("--tag", "tags", multiple=True, help="A word that it is found by; repeat for more.")
@_BY
@JSON
def add(fact: tuple[str, ...], project: str | None, tags: tuple[str, ...], by: str | None, json_wanted: bool) -> None:
    """Note a FACT. `-` reads it from standard input."""
    noted = _notes(project).add(text_of(fact), tags, by=by)
    if json_wanted:
        as_json(noted)
    else:
        click.echo(f"noted for {noted.project}")


@note.command()
@click.argument("words", nargs=-1, required=True)
@_PROJECT
@_LIMIT
@JSON
def search(words: tuple[str, ...], project: str | None, limit: int, json_wanted: bool) -> None:
    """Show the notes that hold all of these WORDS; exit code 1 if there are none."""
    found = _notes(project).search(" ".join(words))[:limit]
    _show(found, json_wanted)
    sys.exit(0 if found else 1)


@note.command("list")
@_PROJECT
@_LIMIT
@JSON
def list_(project: str | None, limit: int, json_wanted: bool) -> None:
    """Show the latest notes."""
    _show(_notes(project).all()[:limit], json_wanted)


def _show(notes: list[Note], json_wanted: bool) -> None:
    if json_wanted:
        as_json(notes)
        return
    rows = [(ago(one.at), one.by, " ".join(one.tags), one.fact) for one in notes]
    as_table(("NOTED", "BY", "TAGS", "FACT"), rows)


@click.command()
@click.argument("resource")
@click.option("--for", "seconds", type=Duration(), help="For how long, as 30m (default: as long as the task runs).")
@click.option("--wait", type=Duration(), help="Wait so long for it to be free.")
@_BY
@JSON
def claim(resource: str, seconds: float | None, wait: float | None, by: str | None, json_wanted: bool) -> None:
    """Have RESOURCE for yourself: a folder, `port:8080`, any name; exit code 1 and who has it if it is taken."""
    with waiting(f"waiting for {resource}"):
        claimed = Claims().claim(resource, seconds, wait=wait or 0.0, by=by)
    if json_wanted:
        as_json(claimed)
    else:
        click.echo(f"{claimed.resource} is claimed by {claimed.words}")


@click.command()
@click.argument("resource")
@_BY
def release(resource: str, by: str | None) -> None:
    """Give RESOURCE back."""
    released = Claims().release(resource, by=by)
    click.echo(f"{resource} is free" if released else f"{resource} was not claimed")


@click.command()
@JSON
def claims(json_wanted: bool) -> None:
    """List what is claimed, by whom and until when."""
    known = Claims().all()
    if json_wanted:
        as_json(known)
        return
    rows = [
        (one.resource, one.by, one.task or "", f"{one.until:%H:%M:%S}" if one.until else "task's end", ago(one.since))
        for one in known
    ]
    as_table(("RESOURCE", "BY", "TASK", "UNTIL", "SINCE"), rows)


@click.command()
@click.option("--skill", "skills", multiple=True, required=True, help="What the team must be able to do; repeat.")
@JSON
def team(skills: tuple[str, ...], json_wanted: bool) -> None:
    """Name agents that together have all of these skills: free ones first, as few as possible."""
    from torch_tasks.orchestration.assignment import form_team  # brings Celery, which notes and claims do without

    members = form_team(skills)
    if json_wanted:
        as_json(members)
        return
    rows = [(one.agent.agent_id, one.agent.role, one.agent.state, " ".join(one.skills)) for one in members]
    as_table(("AGENT", "ROLE", "STATE", "BRINGS"), rows)


@click.command("help-wanted")
@click.argument("text", nargs=-1, required=True)
@click.option("--skill", "skills", multiple=True, help="What the helper must be able to do; repeat for more.")
@click.option("--role", help="Only an agent of this role, at last a manager.")
@click.option("--expires", type=Duration(), default="10m", show_default=True, help="How long each has to answer.")
@click.option("--from", "sender", metavar="WHO", help="Who asks (default: this pane's agent, or operator).")
@JSON
def help_wanted(
    text: tuple[str, ...],
    skills: tuple[str, ...],
    role: str | None,
    expires: float,
    sender: str | None,
    json_wanted: bool,
) -> None:
    """Ask one able agent after the other for help and print the answer of the first that accepts."""
    with waiting("waiting for somebody who accepts"):
        reply = ask_for_help(text_of(text), skills, role=role, expires=expires, sender=sender)
    if json_wanted:
        as_json(reply)
    else:
        click.echo(f"{reply.message.sender}: {reply.message.message}")
