"""Notes: facts about a project that one agent found out and others need not find out again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks import settings as own
from torch_tasks.broker.connection import broker_errors, connect
from torch_tasks.caller import caller
from torch_tasks.errors import InvalidNote
from torch_tasks.model.fields import Model
from torch_tasks.settings import Settings

_WORD = re.compile(r"\w+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Note(Model):
    """One fact, and who noted it."""

    id: str
    at: datetime
    project: str
    fact: str
    by: str
    task: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def words(self) -> frozenset[str]:
        """What it can be found by."""
        return frozenset(words_of(" ".join((self.fact, *self.tags))))


class Notes:
    """The notes of one project, on this process's broker unless told otherwise.

    The latest ``TORCH_NOTES_LIMIT`` are kept, each for ``TORCH_NOTE_DAYS``.
    """

    def __init__(self, project: str, client: redis.Redis | None = None, settings: Settings | None = None) -> None:
        self.project = project
        self._settings = settings or own.settings()
        self._client = client or connect(self._settings.broker())

    def add(self, fact: str, tags: Iterable[str] = (), *, by: str | None = None) -> Note:
        """Note a fact for whoever works on the project; :class:`InvalidNote` if it cannot be kept."""
        text = " ".join(_CONTROL.sub(" ", fact).split())
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
        with broker_errors(), self._client.pipeline() as pipe:
            pipe.xadd(self._key, fields, maxlen=self._settings.notes_limit, approximate=False)
            pipe.expire(self._key, int(self._settings.note_days * 86400))
            number = str(pipe.execute()[0])
        return self._note(number, fields)

    def all(self) -> list[Note]:
        """What is known, the latest first; of a fact that was noted twice, the latest."""
        with broker_errors():
            seconds, _ = self._client.time()
            oldest = max(0, int((seconds - self._settings.note_days * 86400) * 1000))
            entries: Any = self._client.xrevrange(self._key, min=str(oldest))
        latest: dict[str, Note] = {}
        for number, fields in entries:
            note = self._note(str(number), fields)
            latest.setdefault(note.fact, note)
        return list(latest.values())

    def search(self, text: str) -> list[Note]:
        """Those that hold every one of these words, as words and in whatever case."""
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
    """The words of a text, in lower case."""
    return _WORD.findall(text.casefold())


def as_facts(notes: Iterable[Note], limit: int) -> str:
    """The first of these notes as lines of at most so many bytes, for an agent to read."""
    lines: list[str] = []
    for note in notes:
        line = f"- {note.fact} ({note.by}, {note.at:%Y-%m-%d})"
        if sum(len(one.encode()) + 1 for one in (*lines, line)) > limit:
            break
        lines.append(line)
    return "\n".join(lines)
