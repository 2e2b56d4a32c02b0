"""Restores tasks that the broker forgot, from the ledger of what was accepted on this machine and how it ended."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache

from torch_tasks import keys
from torch_tasks.broker.connection import broker_errors
from torch_tasks.errors import LedgerUnusable
from torch_tasks.fleet import fleet
from torch_tasks.model.broker_moves import former_places
from torch_tasks.model.task import NOT_BEGUN, TaskState
from torch_tasks.settings import settings
from torch_tasks.store.ledger import Ledger, Row, RowState
from torch_tasks.store.signed_records import why_not_ended
from torch_tasks.store.task_outcomes import Outline
from torch_tasks.transport.gate import Restored

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a process asks the broker whether it is still the one it was."""
CLOSE_SECONDS = 30.0
"""How often a process closes the rows of ended tasks where no node worker does."""
RECALL_SECONDS = 5.0
"""How long another process may take to restore a task."""
BATCH = 200
CLOSE_BATCHES = 20


def settle() -> None:
    """Restore on the broker what it forgot; cheap, so each command calls it before it talks to the broker."""
    if tasks := _enqueued_here():
        tasks.settle()


def settle_and_close() -> None:
    """:func:`settle`, and close the rows of tasks that have ended."""
    if tasks := _enqueued_here():
        tasks.settle_and_close()


def restore_all() -> None:
    """Restore all that the ledger knows, even what was restored before."""
    if tasks := _enqueued_here():
        fleet().reconciler.reconcile(tasks, always=True)


def keep_end(task_id: str, *, asked_here: bool = False) -> None:
    """Close the row of a task that has ended; if its end was ``asked_here``, also of a task enqueued elsewhere."""
    ledger = fleet().ledger
    if ledger is None:
        return
    try:
        if asked_here or (ledger.exists() and ledger.state(task_id) not in (None, RowState.CLOSED)):
            account = fleet().records.account(task_id)
            if account and TaskState(account["state"]).ended and not why_not_ended(task_id, account):
                ledger.close(task_id, account, flushed=asked_here)
    except LedgerUnusable as error:
        log.warning("%s", error)


def recall(task_id: str) -> None:
    """Restore a task that the broker forgot, if this machine's ledger has it."""
    ledger = fleet().ledger
    if ledger is None or not ledger.exists() or ledger.state(task_id) is None:
        return
    restore_all()
    deadline = time.monotonic() + RECALL_SECONDS
    while fleet().records.state(task_id) is None and time.monotonic() < deadline:
        time.sleep(0.05)  # another process is restoring it


def came_after_backup() -> list[str]:
    """The tasks enqueued here of which the backup that was restored does not know, as far as nothing else does.

    What the fleet's other machines have put back since is not among them.
    """
    tasks = _enqueued_here()
    if tasks is None:
        return []
    fleet().reconciler.reconcile(tasks, always=True)
    return tasks.lost()


def send_again(task_ids: Collection[str]) -> None:
    """Send these of :func:`came_after_backup` anew, each of which may have been done before."""
    if tasks := _enqueued_here():
        tasks.send_lost(task_ids)


def adopt(former: str) -> int:
    """Have what was enqueued here through a former broker be this one's; returns how many of these tasks are open."""
    ledger = fleet().ledger
    return ledger.adopt(former) if ledger and ledger.exists() else 0


def is_spooled(task_id: str) -> bool:
    """The task was accepted while the broker was away, and waits on this machine's disk."""
    ledger = fleet().ledger
    return ledger is not None and ledger.exists() and ledger.state(task_id) is RowState.SPOOLED


def _enqueued_here() -> EnqueuedTasks | None:
    """With what was enqueued under the former addresses of a broker that has moved."""
    ledger = fleet().ledger
    if ledger is None or not ledger.exists():
        return None
    moved = settings().state.broker_moved
    for place in former_places(moved, settings().broker()) if moved.exists() else ():
        ledger.adopt(place)
    return _tasks_in(ledger)


class EnqueuedTasks:
    """The tasks in one ledger, as a source for the reconciler of its broker.

    Of several processes the first restores a task, for its row is claimed once. A second message would do no harm: a
    task runs once, however often it is delivered.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._looked = -math.inf

    def settle(self) -> None:
        """Compare unless that was just done and all is sent; close rows if no node worker does."""
        unsent = self._ledger.unsent()
        if unsent or time.monotonic() - self._looked >= LOOK_SECONDS:
            self._compare(unsent)
            if self._ledger.is_closing_due(CLOSE_SECONDS):
                self._close_ended()

    def settle_and_close(self) -> None:
        self._compare(self._ledger.unsent())
        self._close_ended()

    def _compare(self, unsent: Sequence[Row]) -> None:
        """Restore all if the broker was replaced, and send what was never sent."""
        fleet().reconciler.reconcile(self)
        if unsent and not fleet().room.is_left:  # the others wait on this disk
            unsent = [row for row in unsent if row.state is RowState.WITHDRAWN]
        messages = _MessageFinder()
        for start in range(0, len(unsent), BATCH):
            self._restore(unsent[start : start + BATCH], messages)
        self._looked = time.monotonic()

    @property
    def name(self) -> str:
        return self._ledger.name

    def put_back(self) -> bool:
        """Announce tasks that have ended, then restore the others."""
        for rows in _batches(self._ledger.closed_after):
            self._announce(rows)
        messages = _MessageFinder()
        for rows in _batches(self._ledger.open_after):
            self._restore([row for row in rows if not row.in_hands], messages)
        self._ledger.reconciled()
        return True

    def lost(self) -> list[str]:
        return [row.task_id for row in self._ledger.lost()]

    def send_lost(self, task_ids: Collection[str]) -> None:
        for row in self._ledger.lost():
            if row.task_id in task_ids:
                self._send(row)

    def _close_ended(self) -> None:
        """Close ended tasks, the rows not looked at for longest first; forget old ones."""
        if self._ledger.is_closing_due(CLOSE_SECONDS / 3):
            self._ledger.note_closing()
        for _ in range(CLOSE_BATCHES):
            rows = self._ledger.longest_unseen(BATCH)
            if not self._restore(rows) or len(rows) < BATCH:
                break
        self._ledger.prune(settings().result_days)

    def _announce(self, rows: Sequence[Row]) -> None:
        """Write ends into the records that forgot them."""
        records = fleet().records
        outlines = records.outlines(row.task_id for row in rows)
        records.restore_many(
            {
                row.task_id: self._ledger.account(row)
                for row, outline in zip(rows, outlines, strict=True)
                if outline is None or outline.revision < row.revision
            }
        )

    def _restore(self, rows: Sequence[Row], messages: _MessageFinder | None = None) -> int:
        """Send, withdraw or close each row as its record asks; returns how many tasks have ended.

        Without ``messages``, a task with a record is taken to have a message.
        """
        ended, going = [], []
        outlines = fleet().records.outlines(row.task_id for row in rows)
        restored = fleet().gate.last_restored() if None in outlines else None
        if messages:
            messages.look(
                {queue for row, outline in zip(rows, outlines, strict=True) for queue in _places(row, outline)}
            )
            messages.look_for_pinned({row.task_id for row in rows})
        for row, outline in zip(rows, outlines, strict=True):
            if row.state is RowState.WITHDRAWN:
                self._withdraw(row, outline)
            elif outline is None and _came_after_backup(row, restored):
                self._ledger.note(row.task_id, RowState.LOST)
            elif outline is None:
                self._send(row)
            elif outline.state.ended:
                ended.append(row)
            elif messages and outline.state in NOT_BEGUN and not messages.has(row):
                self._send(row, has_record=True)
            else:
                going.append(row)
        self._ledger.seen(going)
        self._close(ended)
        return len(ended)

    def _close(self, rows: Sequence[Row]) -> None:
        for row, account in zip(rows, fleet().records.accounts(row.task_id for row in rows), strict=True):
            if account and not why_not_ended(row.task_id, account):
                self._ledger.close(row.task_id, account)
            elif account:
                fleet().records.find(row.task_id)  # which undoes an end that nobody signed

    def _send(self, row: Row, *, has_record: bool = False) -> None:
        """Publish the row's message, unless another process is doing so or the task may have ended."""
        from torch_tasks.app import app
        from torch_tasks.tasks.publishing import Outgoing

        # It had not ended when the row was touched: its record can have expired only if it ended right afterwards.
        kept_for = int(settings().result_days * 86400) * 0.99
        if row.state is RowState.PUBLISHED and time.time() - row.touched > kept_for:
            log.warning("task %s not restored: last seen so long ago that it may have ended", row.task_id)
            self._ledger.drop(row)
            return
        if not self._ledger.claim(row):
            return
        outgoing = Outgoing.read(self._ledger.message(row))
        try:
            with broker_errors():
                accepted = outgoing.accept(app)
                if accepted.new_record or has_record:
                    with app.producer_or_acquire() as producer:
                        outgoing.publish(producer, accepted, declare=[app.amqp.queues[row.queue]])
                    log.info("task %s restored in %s", row.task_id, row.queue)
        except BaseException:
            self._ledger.note(row.task_id, row.state)
            raise
        self._ledger.note(row.task_id, RowState.PUBLISHED)

    def _withdraw(self, row: Row, outline: Outline | None) -> None:
        """Have the broker forget a task whose enqueueing failed, unless an agent has begun.

        If its sender enqueues it again meanwhile, the new row stays and its record is restored.
        """
        if outline and outline.state in (TaskState.QUEUED, TaskState.PENDING) and self._ledger.is_as_read(row):
            fleet().records.forget(row.task_id)
        self._ledger.drop(row)


_tasks_in = cache(EnqueuedTasks)


def _came_after_backup(row: Row, restored: Restored | None) -> bool:
    """Whether the task was on the broker that was lost, and the backup restored since then does not know it.

    It may have been done: sending it again is for a person to decide.
    """
    is_of_before = row.state is RowState.PUBLISHED and restored is not None and row.touched < restored.at
    return is_of_before or row.state is RowState.LOST


def _places(row: Row, outline: Outline | None) -> tuple[str, ...]:
    return (row.queue, outline.queue) if outline and outline.state in NOT_BEGUN else ()


def _batches(after: Callable[[int, int], list[Row]]) -> Iterator[list[Row]]:
    number = 0
    while rows := after(number, BATCH):
        yield rows
        number = rows[-1].number


class _MessageFinder:
    """Finds which tasks have a message; each queue is read once."""

    def __init__(self) -> None:
        self._since = time.time()
        self._queues: set[str] = set()
        self._found: set[str] = set()

    def look(self, queues: Collection[str]) -> None:
        """Read those of these queues that were not read yet, and the messages that workers hold."""
        if unknown := set(queues) - self._queues:
            self._found |= fleet().deliveries.on_the_way(unknown)
            self._queues |= unknown

    def look_for_pinned(self, task_ids: Collection[str]) -> None:
        """Read the queues of the agents that were chosen for these tasks."""
        self.look({keys.agent_queue(agent_id) for agent_id, task_id in fleet().soft_pins.all() if task_id in task_ids})

    def has(self, row: Row) -> bool:
        """The task has a message, or was published since this began to read."""
        return row.task_id in self._found or (row.state is RowState.PUBLISHED and row.touched >= self._since)
