"""``Checkins``: scheduled notes and tasks, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from torch_tasks.caller import caller
from torch_tasks.checkins.book import AcceptedCheckin
from torch_tasks.checkins.times import Zone, own_zone
from torch_tasks.errors import InvalidCheckin
from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.model.checkin import CheckinRecord, Fire
from torch_tasks.operations import checkins as operations
from torch_tasks.operations.checkins import TimeForm
from torch_tasks.operations.operation import Nothing
from torch_tasks.system.surrounding_span import surrounding_span


class Checkins:
    """The check-ins, in the name of one party: the agent in whose pane this runs, else a person."""

    def __init__(self, sender: str | None = None, *, link: Link | None = None) -> None:
        self._sender = sender
        self._link = link or own_link()

    @property
    def sender(self) -> str:
        return self._sender or caller().name

    # ── asking for one ───────────────────────────────────────────────────────────────────────────────────────────

    def after(self, minutes: float, note: str, target: str | None = None, **how: Any) -> AcceptedCheckin:
        """Send the note once, so many minutes from now; 0.1 is six seconds.

        It is for the agent ``target``, by default the caller, or for all agents of a ``role`` or in a ``project``;
        ``task`` (the fields of a task) enqueues a task with the note as its prompt. ``when`` decides what happens if
        the receiver works, ``misfire`` what happens to slots missed for want of a beat, ``jitter`` how many seconds
        late it may be; a repeated one stops after ``max_runs`` or at ``ends``. The same ``id`` twice is one check-in.
        Nothing is scheduled if this raises :class:`InvalidCheckin` or :class:`UnknownRecipient`.
        """
        return self._add(note, target, how, minutes=minutes)

    def at(self, time: datetime | str, note: str, target: str | None = None, **how: Any) -> AcceptedCheckin:
        """Send the note once, at a time such as ``"tomorrow 9:00"`` or a datetime; the rest is as for :meth:`after`."""
        return self._add(note, target, how, time=_text(time), form=TimeForm.ONCE)

    def every(
        self, interval: float | timedelta | str, note: str, target: str | None = None, *, start: Any = None, **how: Any
    ) -> AcceptedCheckin:
        """Send the note at intervals, in seconds or as ``"30m"``, from ``start`` on or after one interval; the rest is
        as for :meth:`after`.
        """
        seconds = interval.total_seconds() if isinstance(interval, timedelta) else interval
        length = f"{seconds:.6f}s" if isinstance(seconds, int | float) else seconds.removeprefix("every ")
        text = f"every {length}" + (f" from {_text(start)}" if start else "")
        return self._add(note, target, how, time=text, form=TimeForm.EVERY)

    def cron(
        self, line: str, note: str, target: str | None = None, *, timezone: str | None = None, **how: Any
    ) -> AcceptedCheckin:
        """Send the note as a cron line says, in ``timezone``; the rest is as for :meth:`after`."""
        return self._add(note, target, how, time=line, form=TimeForm.CRON, timezone=timezone)

    def add(
        self, time: str, note: str, target: str | None = None, *, timezone: str | None = None, **how: Any
    ) -> AcceptedCheckin:
        """Send the note when the text says, once or repeatedly; the rest is as for :meth:`after`."""
        return self._add(note, target, how, time=time, timezone=timezone)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def list(self) -> Sequence[CheckinRecord]:
        """All check-ins, the next one first, those that never fire again last."""
        return self._link.perform(operations.list_checkins, Nothing())

    def get(self, checkin_id: str) -> CheckinRecord:
        return self._link.perform(operations.get, _one(checkin_id))

    def history(self, checkin_id: str, limit: int = 50) -> Sequence[Fire]:
        """The outcomes of its slots, the latest first, with the present states of their messages and tasks."""
        asked = operations.GetFires.build(checkin_id=checkin_id, limit=limit)
        return self._link.perform(operations.history, asked)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def change(self, checkin_id: str, **fields: Any) -> AcceptedCheckin:
        """Change the ``time``, ``note``, receiver or options that are named, as :meth:`add` takes them.

        Nothing has changed if this raises :class:`CheckinChanged`: another caller was quicker.
        """
        asked = operations.ChangeCheckin.build(
            checkin_id=checkin_id, **_named({"traceparent": surrounding_span(), **fields})
        )
        return self._link.perform(operations.change, asked)

    def pause(self, checkin_id: str) -> CheckinRecord:
        """Let it not fire until it is resumed; slots that pass meanwhile are skipped."""
        return self._link.perform(operations.pause, _one(checkin_id))

    def resume(self, checkin_id: str) -> CheckinRecord:
        """Let it fire again, from its next slot on."""
        return self._link.perform(operations.resume, _one(checkin_id))

    def remove(self, checkin_id: str) -> None:
        """Forget it and its history; what has fired is delivered all the same."""
        self._link.perform(operations.remove, _one(checkin_id))

    def run_now(self, checkin_id: str) -> Fire:
        """Let it fire at once, in addition to its slots."""
        return self._link.perform(operations.run, _one(checkin_id))

    def _add(self, note: str, target: str | None, how: dict[str, Any], **when: Any) -> AcceptedCheckin:
        fields = _named(
            {**how, "note": note, "target": target, "sender": self._sender, "traceparent": surrounding_span(), **when}
        )
        return self._link.perform(operations.add, operations.AddCheckin.build(**fields))


def _one(checkin_id: str) -> operations.OfCheckin:
    return operations.OfCheckin.build(checkin_id=checkin_id)


def _named(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something, as any process reads them: with this one's time zone, and whole paths."""
    named = {name: value for name, value in fields.items() if value is not None}
    if clock := _clock():
        named["clock"] = clock
    if "ends" in named:
        named["ends"] = _text(named["ends"])
    if isinstance(task := named.get("task"), dict) and task.get("workdir"):
        named["task"] = task | {"workdir": str(Path(task["workdir"]).expanduser().absolute())}
    return named


def _clock() -> Zone | None:
    try:
        return own_zone()
    except InvalidCheckin:  # raised where it is carried out, if a time depends on it
        return None


def _text(time: Any) -> Any:
    return time.isoformat(sep=" ") if isinstance(time, datetime) else time
