"""Celery's result backend on Redis, which waits for a broker that is away and believes what nodes have signed.

It subscribes only for those who wait.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from celery import states
from celery.backends.base import decompress_payload
from celery.backends.redis import RedisBackend
from celery.exceptions import ChordError
from celery.worker import state as worker_state
from tenacity import Retrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from torch_tasks.broker.connection import LOST
from torch_tasks.broker.following import followed
from torch_tasks.broker.scripts import Scripts
from torch_tasks.broker.signed_results import believed_text, require_node, signed_text
from torch_tasks.errors import BadSignature, SignatureRefused
from torch_tasks.settings import settings

log = logging.getLogger(__name__)

SCRIPTS = Scripts(__file__)

_PENDING = {"status": states.PENDING, "result": None}
_PART = "part"
_SIZE = ".size"
"""Ends the key of a chord's size as it was signed; Celery's own says the same as a mere number."""


@dataclass
class _Chord:
    """A chord of which this process adds a part, and maybe reads all."""

    group: str
    index: int | None
    read: set[tuple[str, Any]] = field(default_factory=set)
    """The parts that were read and are believed: each once."""
    is_nested: bool = False
    """Groups are among its parts: Celery reads the results of their tasks, and not the parts."""


_chord: ContextVar[_Chord | None] = ContextVar("_chord", default=None)


class Results(RedisBackend):
    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do not subscribe to a task's result when it is sent; a process that waits subscribes when it begins to."""

    def _get_pool(self, **parameters: Any) -> Any:
        return super()._get_pool(**followed(parameters))

    def store_result(self, *args: Any, **kwargs: Any) -> Any:
        """Try to store a result until the broker is back or this worker stops.

        Celery would take the lost connection for the task's failure, and never settle its message.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(LOST),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            stop=lambda _: _is_worker_stopping(),
            reraise=True,
        )
        return retrying(super().store_result, *args, **kwargs)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """As Celery does, which never writes over a success; a success itself in one step, where that can be done."""
        if state == states.SUCCESS and self.expires:
            meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
            text = self.encode(meta | {"task_id": task_id})
            if len(text) <= self._MAX_STR_VALUE_SIZE and self.ensure(self._keep_success, (task_id, text)):
                return result
        return super()._store_result(task_id, result, state, traceback, request, **kwargs)

    def _keep_success(self, task_id: str, text: str) -> bool:
        kept = SCRIPTS["keep_success"](
            self.client, result=self.get_key_for_task(task_id), text=text, keep_seconds=int(self.expires)
        )
        return bool(kept)

    # ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────

    def _encode(self, data: Any) -> Any:
        """As it is kept: signed, and a part of a chord for its place in it."""
        chord = None if isinstance(data, dict) else _chord.get()
        claims = {"group": chord.group, "index": chord.index} if chord else {}
        kind, encoding, text = super()._encode(data if isinstance(data, dict) else {_PART: data})
        return kind, encoding, signed_text(text, **claims)

    def decode(self, payload: Any) -> Any:
        """What is kept; :class:`SignatureRefused` unless somebody of the fleet signed it."""
        return None if payload is None else super().decode(believed_text(_text_of(payload))[0])

    def decode_result(self, payload: Any) -> Any:
        """A result; one that no node signed is none."""
        try:
            return self._result(payload)
        except SignatureRefused as error:
            self._refuse("the results", error)
            return dict(_PENDING)

    def _get_task_meta_for(self, task_id: str) -> Any:
        kept = self.get(self.get_key_for_task(task_id))
        try:
            return self._result(kept, of=task_id) if kept else dict(_PENDING)
        except SignatureRefused as error:
            self._refuse(f"the result of {task_id}", error)
            return dict(_PENDING)

    def _result(self, payload: Any, of: str | None = None) -> Any:
        text, signed = believed_text(_text_of(payload))
        require_node(signed)
        meta = super().decode(text)
        if not (isinstance(meta, dict) and {"task_id", "status"} <= meta.keys()):
            raise BadSignature("it is no result of a task")
        if of not in (None, meta["task_id"]):
            raise BadSignature(f"it is the one of task {meta['task_id']}")
        return self.meta_from_decoded(meta)

    def _mget_to_results(self, values: Any, keys: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        found = super()._mget_to_results(values, keys, *args, **kwargs)
        return {name: meta for name, meta in found.items() if meta.get("task_id") == name}

    def meta_text(self, task_id: str) -> str | None:
        """What is kept of a task's result, as JSON without its signature; None if nothing is, or nothing believed."""
        kept = self.get(self.get_key_for_task(task_id))
        if kept is None or self.decode_result(kept).get("task_id") != task_id:
            return None
        return believed_text(_text_of(kept))[0]

    def _restore_group(self, group_id: str) -> Any:
        try:
            meta = super()._restore_group(group_id)
        except SignatureRefused as error:
            self._refuse(f"the tasks of group {group_id}", error)
            return None
        if meta and meta["result"].id != group_id:
            self._refuse(f"the tasks of group {group_id}", BadSignature(f"they are those of {meta['result'].id}"))
            return None
        return meta

    def _refuse(self, place: str, error: SignatureRefused) -> None:
        log.error("%s: not believed: %s", place, error)
        self.app.amqp.leases.listeners.refused(place, str(error))

    # ── chords ───────────────────────────────────────────────────────────────────────────────────────────────────

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        text = super()._encode({"group": group_id, "size": chord_size})[2]
        self._set_chord_key(self.get_key_for_group(group_id, _SIZE), signed_text(text))
        super().set_chord_size(group_id, chord_size)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **options: Any) -> None:
        """Add a task's end to its chord; the body starts with what nodes signed, when all of it is there."""
        if not request.group or settings().signing == "off":
            super().on_chord_part_return(request, state, result, **options)
            return
        with _part_of(_Chord(request.group, request.group_index)) as chord:
            self._mend(chord)
            super().on_chord_part_return(request, state, result, **options)

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        group = super().restore_group(group_id, cache)
        if chord := _chord.get():
            chord.is_nested = group is not None
        return group

    def _mend(self, chord: _Chord) -> None:
        """Undo what was written into the chord by hand, so that it ends when its tasks have."""
        size = self._signed_size(chord.group)
        if size is None:
            return
        parts, said = self.get_key_for_group(chord.group, ".j"), self.get_key_for_group(chord.group, ".s")
        with self.client.pipeline(transaction=False) as pipe:
            there, kept = pipe.zcard(parts).get(said).execute()
        if kept is not None and kept != b"%d" % size:
            self._refuse(f"the size of chord {chord.group}", BadSignature(f"{size} was signed, not {kept!r}"))
            self._set_chord_key(said, size)
        if there + 1 < size:
            return
        for part in self.client.zrange(parts, 0, -1):
            try:
                self._part(part)
            except SignatureRefused as error:
                self._refuse(f"a part of chord {chord.group}", error)
                self.client.zrem(parts, part)

    def _unpack_chord_result(self, tup: Any, decode: Any, *args: Any, **kwargs: Any) -> Any:
        chord = _chord.get()
        try:
            (index, part) = self._part(tup)
        except SignatureRefused as error:
            raise ChordError(f"a part of it was written by hand: {error}") from None
        if chord:
            chord.read.add((part[1], index))
        return super()._unpack_chord_result(tup, lambda _: part, *args, **kwargs)

    def _part(self, payload: Any) -> tuple[int | None, Any]:
        """A part of the chord at hand, and its place there."""
        chord = _chord.get()
        text, signed = believed_text(_text_of(payload), **({"group": chord.group} if chord else {}))
        require_node(signed)
        return signed.claims.get("index") if signed else None, super().decode(text)[_PART]

    def _chord_publish_claim_expires(self, initial_expires: Any, callback: Any) -> Any:
        """Celery asks this when it has read all parts and before it sends the body: none may be missing."""
        chord = _chord.get()
        if chord and not chord.is_nested and settings().signing == "enforce":
            size = self._signed_size(chord.group)
            if size is None or len(chord.read) < size:
                raise ChordError(f"{len(chord.read)} of its parts were signed, and {size or 'no number'} was announced")
        return super()._chord_publish_claim_expires(initial_expires, callback)

    def _signed_size(self, group_id: str) -> int | None:
        """How many tasks a chord waits for, as who sent it signed; None if that is not known."""
        kept = self.get(self.get_key_for_group(group_id, _SIZE))
        try:
            said = self.decode(kept) or {}
        except SignatureRefused as error:
            self._refuse(f"the size of chord {group_id}", error)
            return None
        return int(said["size"]) if said.get("group") == group_id else None


@contextmanager
def _part_of(chord: _Chord) -> Iterator[_Chord]:
    token = _chord.set(chord)
    try:
        yield chord
    finally:
        _chord.reset(token)


def _text_of(payload: Any) -> str:
    text = decompress_payload(payload)
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _is_worker_stopping() -> bool:
    # Each holds None or False, or else the exit code: 0 means that the worker stops, too.
    orders = (worker_state.should_stop, worker_state.should_terminate)
    return any(order is not None and order is not False for order in orders)
