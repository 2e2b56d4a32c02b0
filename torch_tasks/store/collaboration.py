"""What agents share: claims on resources that only one can use, and notes of facts."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import redis

from torch_tasks import keys
from torch_tasks import settings as own
from torch_tasks.broker.connection import connect
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.broker.scripts import Scripts
from torch_tasks.caller import caller
from torch_tasks.errors import InvalidClaim, InvalidNote, ResourceTaken, Unreadable
from torch_tasks.model.durations import local_time
from torch_tasks.model.fields import KeptText, Model
from torch_tasks.model.reader import read_object, unreadable_if_wrong
from torch_tasks.model.task import HELD
from torch_tasks.redaction import redacted
from torch_tasks.settings import Settings
from torch_tasks.started_by_name import CLAIMS, NOTES, load
from torch_tasks.store.agents import signs_of_death

if TYPE_CHECKING:
    from torch_tasks.facades.collaboration import Claims as Claims
    from torch_tasks.facades.collaboration import Notes as Notes

SCRIPTS = Scripts(__file__, HELD=HELD)

_RETRY_SECONDS = 0.25
_NAME_LIMIT = 512


class Claim(Model):
    resource: str
    by: str
    agent: bool
    """Whether the holder is an agent; the resource is free when that agent is dead."""
    task: str | None = None
    since: datetime
    until: datetime | None = None
    """None: as long as the task runs."""

    @property
    def words(self) -> str:
        for_what = f" for task {self.task}" if self.task else ""
        end = f"until {local_time(self.until)}" if self.until else "as long as that task runs"
        return f"{self.by}{for_what}, {end}"


class ClaimStore:
    """The claims, on this process's broker unless a client is given.

    A claim holds until its time is over by the broker's clock; without a time, as long as its agent has the task in
    which it was made. It ends at once when it is released, or when its agent is dead.
    """

    def __init__(self, client: redis.Redis | None = None, settings: Settings | None = None) -> None:
        self._settings = settings or own.settings()
        self._client = client or connect(self._settings.broker())

    def claim(self, resource: str, seconds: float | None = None, *, wait: float = 0.0, by: str | None = None) -> Claim:
        """Claim a resource, or claim it for longer; :class:`ResourceTaken` if another party has it after the ``wait``.

        Without ``seconds``, the claim lasts as long as the task of this agent's pane; outside a task, for
        ``TORCH_CLAIM_SECONDS``.
        """
        name, deadline = named(resource), time.monotonic() + wait
        while True:
            outcome, claim = self._try(name, seconds, by)
            if outcome == "claimed":
                return _read(name, claim)
            if outcome == "held" and time.monotonic() >= deadline:
                raise ResourceTaken(f"{name} is claimed by {_read(name, claim).words}")
            if outcome == "held":
                time.sleep(min(_RETRY_SECONDS, max(0.0, deadline - time.monotonic())))

    def release(self, resource: str, *, by: str | None = None) -> bool:
        """Release a resource; false if it is free, :class:`ResourceTaken` if another party has it."""
        name, holder = named(resource), by or caller().name
        known = self._known(name)
        if known and not self._holds(name, known):
            return False
        outcome, claim = SCRIPTS["release"](self._client, claims=keys.CLAIMS, resource=name, by=holder)
        if outcome == "held":
            raise ResourceTaken(f"{name} is not {holder}'s to release: it is claimed by {_read(name, claim).words}")
        return bool(outcome == "released")

    def all(self) -> list[Claim]:
        """The claims that hold now."""
        known = {str(name): str(claim) for name, claim in self._client.hgetall(keys.CLAIMS).items()}
        held = {name: claim for name, claim in sorted(known.items()) if self._holds(name, claim)}
        return list(RefusedLetters(self._client).readable(keys.CLAIMS, held, _read).values())

    def _try(self, name: str, seconds: float | None, by: str | None) -> tuple[str, str]:
        own = caller()
        holder, task = by or own.name, own.task
        in_task = bool(task and own.agent == holder)
        if seconds is None and not in_task:
            seconds = self._settings.claim_seconds
        outcome, claim = SCRIPTS["claim"](
            self._client,
            **self._claimed(name, self._known(name)),
            by=holder,
            agent=own.agent == holder,
            task=task if in_task else None,
            ms=None if seconds is None else int(seconds * 1000),
        )
        return str(outcome), str(claim)

    def _holds(self, name: str, known: str) -> bool:
        return bool(SCRIPTS["is_held"](self._client, **self._claimed(name, known)))

    def _known(self, name: str) -> str:
        return str(self._client.hget(keys.CLAIMS, name) or "")

    def _claimed(self, name: str, known: str) -> dict[str, str | int]:
        task = _task_of(known)
        return {
            **signs_of_death(self._settings),
            "claims": keys.CLAIMS,
            "record": keys.task_record(task or "none"),
            "resource": name,
            "known": known,
        }


def named(resource: str) -> str:
    """The one name of a resource: a path must be absolute, for who carries it out is in another folder."""
    name = resource.strip()
    if name.startswith(("./", "../", "~")) or name in (".", ".."):
        raise InvalidClaim(f"{name!r} depends on the folder from which it is asked for: give the whole path")
    if name.startswith("/"):
        name = os.path.normpath(name)
    if not name or len(name) > _NAME_LIMIT or not name.isprintable():
        raise InvalidClaim(f"{resource[:80]!r} is no name of a resource: give 1 to {_NAME_LIMIT} printable characters")
    return name


def _task_of(claim: str) -> str | None:
    """The task for which it was claimed; None also if that cannot be read: then the claim does not hold."""
    try:
        return str(read_object(claim)["task"]) if claim else None
    except (Unreadable, KeyError):
        return None


def _read(name: str, claim: str) -> Claim:
    fields = read_object(claim)
    moments = {moment: fields[moment] / 1000 for moment in ("since", "until") if moment in fields}
    return Claim.model_validate({"resource": name, **fields, **moments})


_WORD = re.compile(r"\w+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Note(Model):
    id: str
    at: datetime
    project: str
    fact: KeptText
    by: str
    task: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def words(self) -> frozenset[str]:
        return frozenset(words_of(" ".join((self.fact, *self.tags))))


class NoteStore:
    """The notes of one project, on this process's broker unless a client is given.

    The latest ``TORCH_NOTES_LIMIT`` are kept, each for ``TORCH_NOTE_DAYS``.
    """

    def __init__(self, project: str, client: redis.Redis | None = None, settings: Settings | None = None) -> None:
        self.project = project
        self._settings = settings or own.settings()
        self._client = client or connect(self._settings.broker())

    def add(self, fact: str, tags: Iterable[str] = (), *, by: str | None = None) -> Note:
        """Add a note for all agents of the project; :class:`InvalidNote` if it is empty or too long."""
        text = redacted(" ".join(_CONTROL.sub(" ", fact).split()))
        size, limit = len(text.encode(errors="replace")), self._settings.note_limit_bytes
        if not text:
            raise InvalidNote("a note needs a fact")
        if size > limit:
            raise InvalidNote(
                f"the note has {size:,} bytes, the limit is {limit:,} (TORCH_NOTE_LIMIT_BYTES): "
                "put the bulk into a file of the project and note where it is"
            )
        own = caller()
        fields: dict[Any, Any] = {
            "fact": text,
            "by": by or own.name,
            "task": own.task or "",
            "tags": " ".join(sorted({word for tag in tags for word in words_of(tag)})),
        }
        with self._client.pipeline() as pipe:
            pipe.xadd(self._key, fields, maxlen=self._settings.notes_limit, approximate=False)
            pipe.expire(self._key, int(self._settings.note_days * 86400))
            number = str(pipe.execute()[0])
        return self._note(number, fields)

    def all(self) -> list[Note]:
        """All notes, the latest first; of a fact that was noted twice, the latest one."""
        seconds, _ = self._client.time()
        oldest = max(0, int((seconds - self._settings.note_days * 86400) * 1000))
        entries: Any = self._client.xrevrange(self._key, min=str(oldest))
        latest: dict[str, Note] = {}
        for number, fields in entries:
            with suppress(Unreadable), unreadable_if_wrong():  # not written by Torch
                note = self._note(str(number), fields)
                latest.setdefault(note.fact, note)
        return list(latest.values())

    def search(self, text: str) -> list[Note]:
        """The notes that contain all of these words, in any case."""
        wanted = set(words_of(text))
        return [note for note in self.all() if wanted <= note.words]

    @property
    def _key(self) -> str:
        return keys.notes(self.project)

    def _note(self, number: str, fields: dict[str, str]) -> Note:
        at = datetime.fromtimestamp(int(number.partition("-")[0]) / 1000, UTC)
        more = {"task": fields["task"] or None, "tags": tuple(fields["tags"].split())}
        return Note(id=number, at=at, project=self.project, fact=fields["fact"], by=fields["by"], **more)


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def as_facts(notes: Iterable[Note], limit: int) -> str:
    """The first of these notes as lines for an agent, of at most so many bytes."""
    lines: list[str] = []
    for note in notes:
        line = f"- {note.fact} ({note.by}, {note.at:%Y-%m-%d})"
        if sum(len(one.encode()) + 1 for one in (*lines, line)) > limit:
            break
        lines.append(line)
    return "\n".join(lines)


def __getattr__(name: str) -> Any:
    # Programs import them from here, and they ask through the link.
    if name in (known := {"Claims": CLAIMS, "Notes": NOTES}):
        return load(known[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
