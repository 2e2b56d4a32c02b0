"""When a task is interrupted: the earlier of its time-out and its deadline."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from torch_tasks.model.fields import now
from torch_tasks.model.task import FailureKind, TaskSpec


class Limit(NamedTuple):
    """A moment, and what is said when it is reached."""

    at: datetime
    kind: FailureKind
    message: str

    @classmethod
    def of(cls, spec: TaskSpec, begun_at: datetime) -> Limit:
        """The task's own limit. Its time runs from its beginning, whoever watches."""
        limits = [cls(datetime.max.replace(tzinfo=begun_at.tzinfo), FailureKind.TIMEOUT, "")]
        if spec.timeout:
            end = begun_at + timedelta(seconds=spec.timeout)
            limits.append(cls(end, FailureKind.TIMEOUT, f"timed out after {spec.timeout:g} s"))
        if spec.deadline:
            message = f"its deadline {spec.deadline.isoformat()} passed while it ran"
            limits.append(cls(spec.deadline, FailureKind.DEADLINE, message))
        return min(limits)

    def or_check(self, seconds: float) -> Limit:
        """This limit or, if that is earlier, the one of a check that begins now."""
        end = now() + timedelta(seconds=seconds)
        return min(self, Limit(end, FailureKind.TIMEOUT, f"its check did not end within {seconds:g} s"))

    @property
    def left(self) -> float:
        """Seconds until then; none left once it is reached."""
        return max(0.0, (self.at - now()).total_seconds())
