"""Dead letters: messages of tasks that Torch tries no more, unless a person replays them."""

from __future__ import annotations

import contextlib

from torch_tasks.broker.refused import RefusedLetter
from torch_tasks.caller import CallerKind
from torch_tasks.errors import IllegalTransition, NotDead, TaskNotFound, Unreadable
from torch_tasks.fleet import Fleet
from torch_tasks.model.asker import Asker
from torch_tasks.model.task import Failure, FailureKind, Priority, TaskRecord, TaskResult, TaskState
from torch_tasks.security.decision import note_denial
from torch_tasks.store.task_fields import followers
from torch_tasks.tasks import task_counts
from torch_tasks.transport.deliveries import queue_of
from torch_tasks.transport.envelope import delivered, losses


def note_refused(place: str, why: str) -> None:
    """Have it known that a message or a result was refused for its signature; nobody can say who wrote it."""
    note_denial("message.deliver", Asker(kind=CallerKind.PROGRAM, name="unknown"), f"what lay in {place}: {why}")


class DeadLetters:
    """The dead letters of one fleet; those of other Celery tasks than ``torch.run`` have no record."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def ids(self) -> list[str]:
        return sorted(self._fleet.deliveries.dead_letter_ids())

    def records(self) -> list[TaskRecord]:
        """The records of dead tasks, the latest first."""
        found = [record for task_id in self.ids() if (record := self._fleet.records.find(task_id))]
        return sorted(found, key=lambda record: record.finished_at or record.created_at, reverse=True)

    def replay(self, task_id: str) -> None:
        """Try the task again, with all its retries; its id, history and place in a canvas stay."""
        records, deliveries = self._fleet.records, self._fleet.deliveries
        message = self._message(task_id)
        if refusal := self._fleet.refused.get(task_id):
            self._replay_refused(task_id, message, refusal)
            return
        record = records.find(task_id)
        if record and record.state is TaskState.DEAD:
            records.withdraw_cancel(task_id)
            records.move(task_id, TaskState.QUEUED, note="replayed", tries_before=record.attempts)
        if message:
            queue = record.queue if record else delivered(message, "")["properties"]["delivery_info"]["routing_key"]
            step = record.spec.priority.step if record else Priority.NORMAL.step
            deliveries.replay(task_id, queue, step)
        elif record:
            from torch_tasks.tasks.run import run

            run.apply_async((record.spec,), task_id=task_id)
            deliveries.forget_dead_letter(task_id)

    def failed_with(self, task_id: str) -> list[TaskRecord]:
        """The tasks that failed because this one had not succeeded, and those that failed because of them."""
        records = self._fleet.records
        found, to_do = [], [task_id]
        while to_do:
            for record in filter(None, records.find_all(followers(records.account(to_do.pop())))):
                error = record.result.error if record.result else None
                if error and error.kind is FailureKind.DEPENDENCY:
                    found.append(record)
                    to_do.append(record.spec.id)
        return found

    def _replay_refused(self, name: str, message: str, refusal: RefusedLetter) -> None:
        """Put a message that was refused back to where it lay, if it can be read by now: a limit was raised."""
        try:
            delivered(message, "", limit=self._fleet.settings.wire_limit_bytes)
        except Unreadable as error:
            raise Unreadable(
                f"dead letter {name} cannot be replayed: {error}. 'torch-tasks dead drop {name}' deletes it"
            ) from None
        self._fleet.deliveries.replay(name, queue_of(refusal.place), Priority.NORMAL.step)

    def drop(self, task_id: str) -> None:
        """Give the task up; its record expires as those of all ended tasks do."""
        self._message(task_id)
        self._fleet.refused.drop(task_id)
        self._fleet.records.let_expire(task_id)
        self._fleet.deliveries.forget_dead_letter(task_id)

    def note_lost(self, task_id: str) -> None:
        """Finish the record of a task that was lost with its worker once too often."""
        message = f"lost with its worker more than {self._fleet.settings.delivery_limit} times"
        failure = Failure(kind=FailureKind.WORKER_LOST, message=message)
        result = TaskResult(task_id=task_id, status=TaskState.DEAD, error=failure)
        with contextlib.suppress(TaskNotFound, IllegalTransition):
            self._fleet.records.finish(result)
            task_counts.ended_without_agent(result.status)

    def note_all_lost(self) -> None:
        """:meth:`note_lost` for each dead letter whose worker died before it could."""
        for task_id, message in self._fleet.deliveries.readable_dead_letters():
            # The others are out of retries: their agents write that into the records.
            if message and losses(message) + 1 >= self._fleet.settings.delivery_limit:
                state = self._fleet.records.state(task_id)
                if state and not state.ended:
                    self.note_lost(task_id)

    def _message(self, task_id: str) -> str:
        message = self._fleet.deliveries.dead_letter(task_id)
        if message is None:
            raise NotDead(f"task {task_id} is not among the dead letters; 'torch-tasks dead list' shows those that are")
        return message
