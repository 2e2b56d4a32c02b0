"""The operations of agents that work together: notes, claims, help, teams."""

from __future__ import annotations

import uuid
from pathlib import Path

from pydantic import Field

from torch_tasks.caller import caller
from torch_tasks.communication.help_wanted import HelpProgress, HelpSearch, HelpWanted
from torch_tasks.errors import InvalidNote
from torch_tasks.fleet import fleet
from torch_tasks.machine.project import project_of
from torch_tasks.model.fields import AgentId, Role, Seconds, Skill, TaskId, Text
from torch_tasks.operations.operation import WAIT_SECONDS, Access, Nothing, Request, WaitSeconds, operation
from torch_tasks.orchestration.team import Member, find_team
from torch_tasks.security.rights import Right, Subject
from torch_tasks.store.collaboration import Claim, ClaimStore, Note, NoteStore


class OfProject(Request):
    """A request about one project."""

    project: Text | None = Field(
        None, min_length=1, description="Its name (default: that of the folder in which the calling agent works)."
    )

    @property
    def notes(self) -> NoteStore:
        if self.project:
            return NoteStore(self.project, fleet().client, fleet().settings)
        own = next(iter(fleet().registry.get_agents([caller().name])), None)
        if own is None:
            raise InvalidNote("this is no agent's pane: name the project")
        return NoteStore(project_of(Path(own.workdir)), fleet().client, fleet().settings)


class AddNote(OfProject):
    fact: str = Field(description="What all should know.")
    tags: tuple[str, ...] = Field((), description="Words to find it by.")
    by: AgentId | None = Field(None, description="The author (default: the caller).")


class ListNotes(OfProject):
    limit: int | None = Field(None, ge=1, description="How many (default: all that are kept).")


class SearchNotes(ListNotes):
    words: str = Field(description="All of these words are in it, in any case.")


class OfResource(Request):
    """A request about one resource."""

    resource: str = Field(description="A whole path, `port:8080`, any name.")
    by: AgentId | None = Field(None, description="The owner (default: the caller).")


class TakeClaim(OfResource):
    seconds: Seconds | None = Field(None, description="For how long (default: as long as the caller's task runs).")
    wait: float = Field(0.0, ge=0, le=WAIT_SECONDS, description="How many seconds to wait until it is free.")


class AskForHelp(HelpWanted, Request):
    id: TaskId = Field(
        default_factory=lambda: uuid.uuid4().hex, description="Asking with the same id goes on with the same request."
    )
    text: Text = Field(min_length=1, description="What help is wanted.")
    skills: tuple[Skill, ...] = Field((), description="Skills that the helper must have.")
    role: Role | None = Field(None, description="Only agents of this role, and at last a manager.")
    expires: Seconds = Field(600.0, description="How many seconds each agent has to answer.")
    sender: AgentId | None = Field(None, description="In whose name (default: the caller's).")
    seconds: WaitSeconds = WAIT_SECONDS


class FindTeam(Request):
    skills: tuple[Skill, ...] = Field(description="The skills that the team must have together.")


def _as_author(asked: AddNote | OfResource) -> Subject:
    return Subject(party=asked.by)


@operation("note.add", Right.SHARE, access=Access.WRITE, about=_as_author, needs_broker=False)
def add_note(asked: AddNote) -> Note:
    """Record a fact about a project for all agents that work in it."""
    return asked.notes.add(asked.fact, asked.tags, by=asked.by)


@operation("note.list", Right.LOOK, needs_broker=False)
def list_notes(asked: ListNotes) -> list[Note]:
    """The notes of a project, the latest first."""
    return asked.notes.all()[: asked.limit]


@operation("note.search", Right.LOOK, needs_broker=False)
def search_notes(asked: SearchNotes) -> list[Note]:
    """The notes of a project that contain all of some words, the latest first."""
    return asked.notes.search(asked.words)[: asked.limit]


@operation("claim.take", Right.SHARE, access=Access.WRITE, about=_as_author, idempotent=True, needs_broker=False)
def take_claim(asked: TakeClaim) -> Claim:
    """Claim a resource that only one can use, or claim it for longer; refused if another party has it."""
    return _claims().claim(asked.resource, asked.seconds, wait=asked.wait, by=asked.by)


@operation("claim.release", Right.SHARE, access=Access.WRITE, about=_as_author, needs_broker=False)
def release_claim(asked: OfResource) -> bool:
    """Release a claimed resource; false if it was free."""
    return _claims().release(asked.resource, by=asked.by)


@operation("claim.list", Right.LOOK, needs_broker=False)
def list_claims(asked: Nothing) -> list[Claim]:
    """The resources that are claimed now, by whom and until when."""
    return _claims().all()


def _claims() -> ClaimStore:
    return ClaimStore(fleet().client, fleet().settings)


@operation(
    "help.ask",
    Right.SEND,
    access=Access.WRITE,
    about=lambda asked: Subject(party=asked.sender),
    needs_broker=False,
)
def ask_for_help(asked: AskForHelp) -> HelpProgress:
    """Ask one able agent after the other for help until one accepts; go on with the same id while none has."""
    return HelpSearch(asked, asked.sender).go_on(asked.seconds)


@operation("team.find", Right.LOOK, needs_broker=False)
def find(asked: FindTeam) -> list[Member]:
    """Agents that together have some skills: as few busy ones, then as few, as possible."""
    return find_team(asked.skills)
