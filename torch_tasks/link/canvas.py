"""Celery in an agent's pane: what ``delay``, ``apply_async`` and canvas send, and the results that they ask for.

All of it goes through the agent's desk, as a pane has no broker.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from celery.backends.base import BaseBackend
from celery.result import GroupResult, result_from_tuple

from torch_tasks.errors import NotThroughDesk
from torch_tasks.link import perform
from torch_tasks.operations import canvas
from torch_tasks.operations.operation import WAIT_SECONDS
from torch_tasks.tasks.publishing import Outgoing


def publish(outgoing: Outgoing, *, spool: bool) -> None:
    """Have the agent's worker publish this task."""
    perform(canvas.publish, canvas.Publish.of(outgoing, spool=spool))


class DeskResults(BaseBackend):  # type: ignore[misc] # Celery has no types
    """Asks the agent's worker for results; in an agent's pane none is stored."""

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return self._meta(task_id, seconds=0)

    def wait_for(self, task_id: str, timeout: float | None = None, on_interval: Any = None, **_: Any) -> dict[str, Any]:
        """The result once it is there, or Celery's own TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            meta = self._meta(task_id, seconds=min(left, WAIT_SECONDS))
            if meta["status"] in self.READY_STATES:
                return meta
            if on_interval:
                on_interval()
            if deadline is not None and time.monotonic() >= deadline:
                raise self.TimeoutError("The operation timed out.")

    def get_many(self, task_ids: Iterable[str], timeout: float | None = None, **_: Any) -> Iterator[tuple[str, Any]]:
        for task_id in task_ids:
            yield task_id, self.wait_for(task_id, timeout)

    def apply_chord(self, header_result_args: Any, body: Any, **_: Any) -> None:
        """Keep the form of the header's results, if groups are among them, for the task that gets them."""
        header = GroupResult(*header_result_args)
        if any(isinstance(one, GroupResult) for one in header.results):
            self._save_group(header.id, header)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        perform(canvas.set_chord_size, canvas.ChordSize.build(group_id=group_id, size=chord_size))

    def _save_group(self, group_id: str, result: GroupResult) -> GroupResult:
        perform(canvas.keep_group, canvas.KeptGroup.build(group_id=group_id, results=result.as_tuple()))
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        kept = perform(canvas.group_kept, canvas.OfGroup.build(group_id=group_id))
        return {"result": result_from_tuple(kept, self.app)} if kept else None

    def _meta(self, task_id: str, seconds: float) -> dict[str, Any]:
        asked = canvas.AwaitResult.build(task_id=task_id, seconds=seconds)
        meta: dict[str, Any] = self.meta_from_decoded(self.decode(perform(canvas.result, asked)))
        return meta

    def _unsupported(self, *_: Any, **__: Any) -> None:
        raise NotThroughDesk("an agent's pane stores and forgets no results of Celery; the fleet's workers do")

    _store_result = _forget = _delete_group = _unsupported
