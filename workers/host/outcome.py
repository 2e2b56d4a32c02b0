"""How a try ended, as a result."""

from __future__ import annotations

from torch_tasks.model.fields import now
from torch_tasks.model.task import Evidence, Failure, FailureKind, TaskResult, TaskState
from torch_tasks.workers.host.presence import Presence
from torch_tasks.workers.host.runs import Run, head_and_tail
from torch_tasks.workers.programs.kind import AgentKind


class Outcome:
    """Makes the results of one agent's tries."""

    def __init__(self, presence: Presence, kind: AgentKind, answer_limit: int) -> None:
        self._presence = presence
        self._kind = kind
        self._answer_limit = answer_limit

    def succeeded(self, run: Run, evidence: tuple[Evidence, ...]) -> TaskResult:
        """The task was done, as the evidence shows."""
        return self._result(run, TaskState.SUCCEEDED, evidence, None)

    def failed(self, run: Run, kind: FailureKind, message: str, evidence: tuple[Evidence, ...] = ()) -> TaskResult:
        """The task was not done, for this reason."""
        status = TaskState.CANCELLED if kind is FailureKind.CANCELLED else TaskState.FAILED
        return self._result(run, status, evidence, Failure(kind=kind, message=message))

    def _result(self, run: Run, status: TaskState, evidence: tuple[Evidence, ...], error: Failure | None) -> TaskResult:
        answer, size = head_and_tail(run.output, self._answer_limit)
        ending = self._kind.ending(run)
        info, current = self._presence.info, self._presence.journal.current
        return TaskResult(
            task_id=run.task_id,
            status=status,
            answer=answer,
            answer_bytes=size,
            answer_file=str(run.output) if size else None,
            exit_code=ending.exit_code if ending else None,
            usage=ending.usage if ending else None,
            evidence=evidence,
            agent=info.agent_id,
            node=info.node,
            attempts=run.attempt,
            started_at=current.begun_at if current else None,
            finished_at=now(),
            error=error,
        )
