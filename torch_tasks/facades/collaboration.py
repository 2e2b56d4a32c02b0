"""``Notes``, ``Claims``, help and teams, from Python."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from torch_tasks.errors import ResourceTaken
from torch_tasks.facades.polling import turns
from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.model.message import MessageRecord
from torch_tasks.operations import collaboration as operations
from torch_tasks.operations.operation import Nothing
from torch_tasks.orchestration.team import Member
from torch_tasks.store.collaboration import Claim, Note
from torch_tasks.system.surrounding_span import surrounding_span


class Notes:
    """The notes of one project.

    The latest ``TORCH_NOTES_LIMIT`` are kept, each for ``TORCH_NOTE_DAYS``.
    """

    def __init__(self, project: str, *, link: Link | None = None) -> None:
        self.project = project
        self._link = link or own_link()

    def add(self, fact: str, tags: Iterable[str] = (), *, by: str | None = None) -> Note:
        """Add a note for all agents of the project; :class:`InvalidNote` if it is empty or too long."""
        asked = operations.AddNote.build(project=self.project, fact=fact, tags=tuple(tags), by=by)
        return self._link.perform(operations.add_note, asked)

    def all(self, limit: int | None = None) -> list[Note]:
        """All notes, the latest first; of a fact that was noted twice, the latest one."""
        return self._link.perform(operations.list_notes, operations.ListNotes.build(project=self.project, limit=limit))

    def search(self, text: str, limit: int | None = None) -> list[Note]:
        """The notes that contain all of these words, in any case."""
        asked = operations.SearchNotes.build(project=self.project, words=text, limit=limit)
        return self._link.perform(operations.search_notes, asked)


class Claims:
    """The claims on resources that only one can use.

    A claim holds until its time is over by the broker's clock; without a time, as long as its agent has the task in
    which it was made. It ends at once when it is released, or when its agent is dead.
    """

    def __init__(self, *, link: Link | None = None) -> None:
        self._link = link or own_link()

    def claim(self, resource: str, seconds: float | None = None, *, wait: float = 0.0, by: str | None = None) -> Claim:
        """Claim a resource, or claim it for longer; :class:`ResourceTaken` if another party has it after the ``wait``.

        Without ``seconds``, the claim lasts as long as the task of this agent's pane; outside a task, for
        ``TORCH_CLAIM_SECONDS``.
        """
        taken: ResourceTaken | None = None
        for some in turns(wait):
            fields = {"resource": _whole(resource), "seconds": seconds, "wait": some, "by": by}
            try:
                return self._link.perform(operations.take_claim, operations.TakeClaim.build(**fields))
            except ResourceTaken as error:
                taken = error
        raise taken or ResourceTaken(resource)

    def release(self, resource: str, *, by: str | None = None) -> bool:
        """Release a resource; false if it is free, :class:`ResourceTaken` if another party has it."""
        asked = operations.OfResource.build(resource=_whole(resource), by=by)
        return self._link.perform(operations.release_claim, asked)

    def all(self) -> list[Claim]:
        """The claims that hold now."""
        return self._link.perform(operations.list_claims, Nothing())


def _whole(resource: str) -> str:
    """The name of a resource as every process says it: a path is made absolute from this process's folder."""
    name = resource.strip()
    if name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        return str(Path(name).expanduser().resolve())
    return name


def ask_for_help(
    text: str,
    skills: Iterable[str] = (),
    *,
    role: str | None = None,
    expires: float = 600.0,
    sender: str | None = None,
    link: Link | None = None,
) -> MessageRecord:
    """Ask the able agents, the best free one first and a manager last, until one accepts; returns its reply.

    Each has ``expires`` seconds. A reply that begins with "decline" declines; any other one is the help.
    :class:`NobodyHelps` if none accepts.
    """
    fields = {"id": uuid.uuid4().hex, "text": text, "skills": tuple(skills), "role": role, "expires": expires}
    asked = operations.AskForHelp.build(**fields, sender=sender, traceparent=surrounding_span())
    link = link or own_link()
    while True:
        if reply := link.perform(operations.ask_for_help, asked).reply:
            return reply


def form_team(skills: Iterable[str], *, link: Link | None = None) -> list[Member]:
    """Online agents that together have these skills: as few busy ones, then as few, as possible. None is reserved.

    :class:`TeamImpossible` names the skills that no agent has.
    """
    asked = operations.FindTeam.build(skills=tuple(skills))
    return (link or own_link()).perform(operations.find, asked)
