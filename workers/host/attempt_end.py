"""What ends an attempt at a task, and how its end becomes a result."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.fields import now
from torch_tasks.model.task import Evidence, Failure, FailureKind, TaskResult, TaskSpec, TaskState
from torch_tasks.store.task_outcomes import Ownership
from torch_tasks.system.files import open_plain
from torch_tasks.system.lineage import Lineage
from torch_tasks.system.loops import in_background
from torch_tasks.system.tally import tally
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.git.task_trees import changes_of
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.terminal import Bell
from torch_tasks.workers.programs.kind import AgentKind
from torch_tasks.workers.programs.prices import priced

#: How many looks in a row without anything new are a standstill.
_LOOKS = 3
STANDSTILL_LINES = 200
#: Lines that change while nothing happens: counters, spinners, the hint how to interrupt.
_TICKING = re.compile(r"interrupt|cancel|[Rr]etrying|tokens")
#: How much of a check's output is kept as evidence.
_CHECK_OUTPUT_BYTES = 2000
#: How long what a check has left behind may take to end before it is killed.
_CHECK_GRACE = 1.0


class AttemptEnd(Enum):
    """What ends an attempt in the pane. Of several at the same time, the first in this order counts."""

    HALTED = "halted"
    """The agent is paused or stopped at once: the task goes back to the queue."""
    HANDED_OVER = "handed over"
    """The task goes to another agent, even if this one has ended it."""
    ENDED = "ended"
    """The program has ended the task; its evidence, and the check, say how."""
    DIED = "died"
    """The pane or the program in it is dead."""
    LOST = "lost"
    """Another agent owns the task now."""
    LEAVING = "leaving"
    """The worker stops; the pane goes on for the next worker."""
    CANCELLED = "cancelled"
    TIME_IS_OVER = "time is over"
    STANDS_STILL = "stands still"


class AttemptFacts(NamedTuple):
    """What one look at an attempt shows."""

    has_ended: bool = False
    is_halted: bool = False
    was_halted: bool = False
    """A worker of this agent interrupted the program before: its ending says nothing about the task."""
    is_handed_over: bool = False
    is_returning: bool = False
    """The command that asked for the handover still runs, in the agent's own turn."""
    is_alive: bool = True
    is_lost: bool = False
    is_leaving: bool = False
    is_cancelled: bool = False
    time_is_over: bool = False
    stands_still: bool = False


ENDS: dict[AttemptEnd, Callable[[AttemptFacts], bool]] = {
    AttemptEnd.HALTED: lambda seen: seen.was_halted or (seen.is_halted and not seen.has_ended),
    AttemptEnd.HANDED_OVER: lambda seen: seen.is_handed_over and (seen.has_ended or not seen.is_returning),
    AttemptEnd.ENDED: lambda seen: seen.has_ended,
    AttemptEnd.DIED: lambda seen: not seen.is_alive,
    AttemptEnd.LOST: lambda seen: seen.is_lost,
    AttemptEnd.LEAVING: lambda seen: seen.is_leaving,
    AttemptEnd.CANCELLED: lambda seen: seen.is_cancelled,
    AttemptEnd.TIME_IS_OVER: lambda seen: seen.time_is_over,
    AttemptEnd.STANDS_STILL: lambda seen: seen.stands_still,
}
"""When each of them applies, in the order in which they count."""


def what_ends(seen: AttemptFacts) -> AttemptEnd | None:
    """What ends the attempt, or nothing while the agent goes on with it."""
    return next((end for end, is_so in ENDS.items() if is_so(seen)), None)


def is_lost(kept: Mapping[str, str] | None, ownership: Ownership | None, info: AgentInfo) -> bool:
    """Whether the task's record, compared with the copy kept on disk, has gone on without this attempt.

    Without a broker, or with one that came back with older data, the attempt counts as the agent's own.
    """
    if kept is None:  # this agent has given the task up already
        return True
    if ownership is None or ownership.revision <= int(kept["revision"]):
        return False
    owner, ours = ownership.owner, (kept.get("agent"), kept.get("node"))
    return owner is None or owner[:2] != ours or owner[2] > info.incarnation


def is_decided(failure: Failure | None, check: str | None) -> bool:
    """Whether the program's ending decides about the task; else the check does, also about a mere exit code."""
    return not check or (failure is not None and failure.kind is not FailureKind.EXIT_CODE)


class AttemptResults:
    """Makes the results of one agent's attempts."""

    def __init__(self, presence: AgentPresence, kind: AgentKind, answer_limit: int) -> None:
        self._presence = presence
        self._kind = kind
        self._answer_limit = answer_limit

    def succeeded(self, attempt: AttemptFolder, evidence: tuple[Evidence, ...]) -> TaskResult:
        return self._result(attempt, TaskState.SUCCEEDED, evidence, None)

    def failed(
        self, attempt: AttemptFolder, kind: FailureKind, message: str, evidence: tuple[Evidence, ...] = ()
    ) -> TaskResult:
        status = TaskState.CANCELLED if kind is FailureKind.CANCELLED else TaskState.FAILED
        return self._result(attempt, status, evidence, Failure(kind=kind, message=message))

    def _result(
        self, attempt: AttemptFolder, status: TaskState, evidence: tuple[Evidence, ...], error: Failure | None
    ) -> TaskResult:
        answer, size = _head_and_tail(attempt.output, self._answer_limit)
        ending = self._kind.ending(attempt)
        info, current = self._presence.info, self._presence.journal.current
        branch, changes = changes_of(attempt)
        return TaskResult(
            task_id=attempt.task_id,
            status=status,
            answer=answer,
            answer_bytes=size,
            answer_file=str(attempt.output) if size else None,
            exit_code=ending.exit_code if ending else None,
            usage=priced(ending.usage) if ending else None,
            branch=branch,
            changes=changes,
            evidence=evidence,
            agent=info.agent_id,
            node=info.node,
            attempts=attempt.attempt,
            started_at=current.begun_at if current else None,
            finished_at=now(),
            error=error,
        )


def _head_and_tail(path: Path, limit: int) -> tuple[str, int]:
    """The text of a file, without its middle if it is larger than ``limit`` bytes; and its size."""
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= limit:
                return file.read().decode(errors="replace"), size
            head = file.read(limit // 2)
            file.seek(size - limit // 2)
            tail = file.read()
    except FileNotFoundError:
        return "", 0
    left_out = size - len(head) - len(tail)
    notice = f"\n… {left_out:,} bytes left out, the whole answer is in {path} …\n"
    return head.decode(errors="replace") + notice + tail.decode(errors="replace"), size


class TimeLimit(NamedTuple):
    """When a task is interrupted, and the kind and message of its failure."""

    at: datetime
    kind: FailureKind
    message: str

    @classmethod
    def of(cls, spec: TaskSpec, begun_at: datetime) -> TimeLimit:
        """The task's own limit. Its time runs from its beginning, also after a change of the worker."""
        limits = [cls(datetime.max.replace(tzinfo=begun_at.tzinfo), FailureKind.TIMEOUT, "")]
        if spec.timeout:
            end = begun_at + timedelta(seconds=spec.timeout)
            limits.append(cls(end, FailureKind.TIMEOUT, f"timed out after {describe_duration(spec.timeout)}"))
        if spec.deadline:
            message = f"its deadline {spec.deadline.isoformat()} passed while it ran"
            limits.append(cls(spec.deadline, FailureKind.DEADLINE, message))
        return min(limits)

    def or_check(self, seconds: float) -> TimeLimit:
        """This limit or, if earlier, that of a check which begins now."""
        end = now() + timedelta(seconds=seconds)
        message = f"its check did not end within {describe_duration(seconds)}"
        return min(self, TimeLimit(end, FailureKind.TIMEOUT, message))

    @property
    def left(self) -> float:
        """Seconds until then; 0 once it is reached."""
        return max(0.0, (self.at - now()).total_seconds())


class StandstillDetector:
    """Detects an agent that goes round in circles: its pane shows nothing new for some seconds (0: never looks)."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._interval = seconds / _LOOKS
        self._next = time.monotonic() + self._interval
        self._last: frozenset[str] = frozenset()
        self._same = 0

    @property
    def is_due(self) -> bool:
        return self._seconds > 0 and time.monotonic() >= self._next

    def stands_still(self, screen: str | None) -> bool:
        """Look at the pane's screen (None: the agent does not work); true if it showed nothing new too often."""
        self._next = time.monotonic() + self._interval
        if screen is None:
            self._same = 0
            return False
        lines = _content(screen)
        # Output that repeats itself adds only lines that were there.
        self._same = self._same + 1 if lines <= self._last else 0
        self._last = lines
        return self._same >= _LOOKS


def _content(screen: str) -> frozenset[str]:
    letters = (re.sub(r"[\W\d_]+", " ", line).strip() for line in screen.splitlines() if not _TICKING.search(line))
    return frozenset(line for line in letters if line)


class TaskCheck:
    """The check command while it runs. Its end rings the bell."""

    def __init__(
        self,
        command: str,
        *,
        words: Sequence[str],
        workdir: str,
        variables: Mapping[str, str],
        log: Path,
        bell: Bell,
        lineage: Lineage,
    ) -> None:
        """``words`` run the command; ``lineage`` are the checks of this agent, of which one runs at a time."""
        self._command = command
        self._log = log
        self._lineage = lineage
        self._begun = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*lineage.words, *words],
                cwd=workdir,
                env={**variables, **lineage.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        in_background("await check", partial(self._wait, bell))

    def _wait(self, bell: Bell) -> None:
        self._process.wait()
        bell.ring()

    @property
    def exit_code(self) -> int | None:
        """How it ended; nothing while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._lineage.end(_CHECK_GRACE)
        tally().observe(metrics.TASK_CHECK_SECONDS, time.monotonic() - self._begun)

    def evidence(self) -> Evidence:
        output = self._log.read_bytes()[-_CHECK_OUTPUT_BYTES:].decode(errors="replace").strip()
        detail = f"{self._command}: exit code {self.exit_code}" + (f"\n{output}" if output else "")
        return Evidence(kind="check", detail=detail, passed=self.exit_code == 0)
