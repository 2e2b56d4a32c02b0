"""What ends an attempt at a task, and how its end becomes a result."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import redis

from torch_tasks.errors import BrokerUnreachable, TorchError
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Evidence, Failure, FailureKind, Handoff, TaskResult, TaskSpec, TaskState
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.workers.git import shown
from torch_tasks.workers.host.journal import AttemptFolder, head_and_tail
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.terminal import Bell, Terminal
from torch_tasks.workers.programs.kind import AgentKind, StateReading
from torch_tasks.workers.tmux.pane import AgentPane

log = logging.getLogger(__name__)

#: The same on so many looks in a row is a standstill; and how many lines of the pane are looked at.
_LOOKS, _HISTORY = 3, 200
#: What ticks while nothing happens: counters, spinners, the hint how to interrupt.
_TICKING = re.compile(r"interrupt|cancel|[Rr]etrying|tokens")
#: So many bytes of a check's output are kept as evidence.
_CHECK_OUTPUT_BYTES = 2000
#: So much of the screen and of the changes is noted for the next agent.
_SCREEN_LIMIT, _DIFF_LIMIT = 8000, 16000


class AttemptResults:
    """Makes the results of one agent's tries."""

    def __init__(self, presence: AgentPresence, kind: AgentKind, answer_limit: int) -> None:
        self._presence = presence
        self._kind = kind
        self._answer_limit = answer_limit

    def succeeded(self, run: AttemptFolder, evidence: tuple[Evidence, ...]) -> TaskResult:
        """The task was done, as the evidence shows."""
        return self._result(run, TaskState.SUCCEEDED, evidence, None)

    def failed(
        self, run: AttemptFolder, kind: FailureKind, message: str, evidence: tuple[Evidence, ...] = ()
    ) -> TaskResult:
        """The task was not done, for this reason."""
        status = TaskState.CANCELLED if kind is FailureKind.CANCELLED else TaskState.FAILED
        return self._result(run, status, evidence, Failure(kind=kind, message=message))

    def _result(
        self, run: AttemptFolder, status: TaskState, evidence: tuple[Evidence, ...], error: Failure | None
    ) -> TaskResult:
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


def is_lost(run: AttemptFolder, records: TaskRecords, info: AgentInfo) -> bool:
    """The task's record has gone on without this try. While the broker is away, nobody can tell."""
    kept = run.recall()
    if kept is None:  # disowned already
        return True
    try:
        standing = records.ownership(run.task_id)
    except (redis.RedisError, BrokerUnreachable):
        return False
    account = kept[0]
    ours = (account.get("agent"), account.get("node"))
    owner = standing.owner
    # What a broker says that came back with older data is no news.
    later = standing.revision > int(account["revision"])
    return later and (owner is None or owner[:2] != ours or owner[2] > info.incarnation)


class TimeLimit(NamedTuple):
    """A moment, and what is said when it is reached."""

    at: datetime
    kind: FailureKind
    message: str

    @classmethod
    def of(cls, spec: TaskSpec, begun_at: datetime) -> TimeLimit:
        """The task's own limit. Its time runs from its beginning, whoever watches."""
        limits = [cls(datetime.max.replace(tzinfo=begun_at.tzinfo), FailureKind.TIMEOUT, "")]
        if spec.timeout:
            end = begun_at + timedelta(seconds=spec.timeout)
            limits.append(cls(end, FailureKind.TIMEOUT, f"timed out after {spec.timeout:g} s"))
        if spec.deadline:
            message = f"its deadline {spec.deadline.isoformat()} passed while it ran"
            limits.append(cls(spec.deadline, FailureKind.DEADLINE, message))
        return min(limits)

    def or_check(self, seconds: float) -> TimeLimit:
        """This limit or, if that is earlier, the one of a check that begins now."""
        end = now() + timedelta(seconds=seconds)
        return min(self, TimeLimit(end, FailureKind.TIMEOUT, f"its check did not end within {seconds:g} s"))

    @property
    def left(self) -> float:
        """Seconds until then; none left once it is reached."""
        return max(0.0, (self.at - now()).total_seconds())


class StandstillDetector:
    """Looks at one agent's pane at intervals while it works on a task."""

    def __init__(self, kind: AgentKind, seconds: float) -> None:
        self._watched = kind.is_conversational and seconds > 0
        self._seconds = seconds
        self._interval = seconds / _LOOKS
        self._next = time.monotonic() + self._interval
        self._last: frozenset[str] = frozenset()
        self._same = 0

    def seen(self, pane: AgentPane, reading: StateReading | None) -> tuple[FailureKind, str] | None:
        """Why the agent should be interrupted, if nothing new has come for so long."""
        if not self._watched or time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + self._interval
        if reading is None or reading.state is not AgentState.WORKING:
            self._same = 0
            return None
        lines = _content(pane.screen(_HISTORY))
        # Output that repeats itself adds lines, and none that is new.
        self._same = self._same + 1 if lines <= self._last else 0
        self._last = lines
        if self._same < _LOOKS:
            return None
        message = f"no progress: nothing new in its pane for {self._seconds:g} s (TORCH_STALLED_SECONDS)"
        return FailureKind.LOOPING, message


def _content(screen: str) -> frozenset[str]:
    letters = (re.sub(r"[\W\d_]+", " ", line).strip() for line in screen.splitlines() if not _TICKING.search(line))
    return frozenset(line for line in letters if line)


class TaskCheck:
    """The check command while it runs. Its end rings the bell."""

    def __init__(self, command: str, *, workdir: str, variables: Mapping[str, str], log: Path, bell: Bell) -> None:
        self._command = command
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=workdir,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=self._wait, args=(bell,), daemon=True).start()

    def _wait(self, bell: Bell) -> None:
        self._process.wait()
        bell.ring()

    @property
    def exit_code(self) -> int | None:
        """How it ended, or nothing while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End it and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def evidence(self) -> Evidence:
        """What it showed."""
        said = self._log.read_bytes()[-_CHECK_OUTPUT_BYTES:].decode(errors="replace").strip()
        detail = f"{self._command}: exit code {self.exit_code}" + (f"\n{said}" if said else "")
        return Evidence(kind="check", detail=detail, passed=self.exit_code == 0)


class HandoffNotes:
    """Notes, at intervals, what the pane shows and what changed in the workdir of one running task."""

    def __init__(self, records: TaskRecords, interval: float) -> None:
        self._records = records
        self._interval = interval
        self._next = time.monotonic() + interval
        self._last: Handoff | None = None

    def note(self, spec: TaskSpec, info: AgentInfo, terminal: Terminal) -> None:
        """Write it into the task's record if it is time and something is new."""
        if time.monotonic() >= self._next:
            self.note_now(spec, info, terminal)

    def note_now(self, spec: TaskSpec, info: AgentInfo, terminal: Terminal) -> None:
        """Write it into the task's record if something is new."""
        self._next = time.monotonic() + self._interval
        workdir = Path(spec.workdir or info.workdir)
        try:
            handoff = Handoff(
                agent=info.agent_id,
                node=info.node,
                noted_at=now(),
                screen=terminal.pane.screen()[-_SCREEN_LIMIT:],
                branch=shown.branch(workdir),
                diff=shown.changes(workdir, _DIFF_LIMIT),
            )
            if self._last is None or handoff.model_copy(update={"noted_at": self._last.noted_at}) != self._last:
                self._records.note_handoff(spec.id, handoff, info)
                self._last = handoff
        except (TorchError, redis.RedisError) as error:
            log.info("%s: nothing noted for a successor: %s", spec.id, error)
