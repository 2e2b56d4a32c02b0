"""One agent's place in the fleet: folder, lock and desk on this node, entry in the registry, incarnation."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import IO, Any

from torch_tasks.caller import Caller
from torch_tasks.errors import AgentTaken, BrokerAway, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo, AgentSpec, AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import TaskResult, TaskState
from torch_tasks.redaction import redacted
from torch_tasks.security.audit import note_event
from torch_tasks.state_folder import HOST_LOCK, JOURNAL, TALLY, TMUX
from torch_tasks.system.files import usable
from torch_tasks.system.loops import Loop
from torch_tasks.system.tally import tally
from torch_tasks.workers.folders import AgentJournal, AttemptFolder
from torch_tasks.workers.host.desk import Desk

log = logging.getLogger(__name__)


class AgentPresence:
    """Holds the agent's place while this process lives, and shows the fleet how the agent is."""

    def __init__(self, spec: AgentSpec, fleet: Fleet) -> None:
        self._spec = spec
        self._fleet = fleet
        self.folder = fleet.settings.state.agent(spec.id)
        self.attempts = self.folder / "runs"
        self._journal_file = self.folder / JOURNAL
        self._desk = Desk(self.folder, self._as_caller)

    def take(self, workdir: Path) -> None:
        """Become the agent's one host, or refuse with :class:`AgentTaken`."""
        with usable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = hold_lock(self.folder / HOST_LOCK, self._taken)
        tally().keep_in(self.folder / TALLY)
        kept = AgentJournal.read(self._journal_file)
        self.journal = kept or AgentJournal(agent_id=self._spec.id, kind=self._spec.kind)
        self.info = self._register(workdir)
        spec = self._spec.model_copy(update={"workdir": str(workdir)})
        self.remember(incarnation=self.info.incarnation, spec=spec)
        if self.journal.current is None:  # else the broker may have counted its end, and the journal not yet
            self.remember(performance=self.info.performance_metrics)
        LivenessFile(self.folder).start(self._fleet.settings.heartbeat_seconds)
        self._desk.open()

    def attempt(self, task_id: str, number: int) -> AttemptFolder:
        return AttemptFolder(self.attempts, task_id, number)

    def remember(self, **changes: Any) -> None:
        """Write what changed into the journal."""
        self.journal = self.journal.model_copy(update=changes)
        self.journal.write(self._journal_file)

    def end(self, account: Mapping[str, str]) -> None:
        """Forget the task in the pane, and count how it ended if its record says that this agent did it."""
        performance = self.journal.performance
        ended_here = account.get("agent") == self._spec.id and TaskState(account["state"]).ended
        if ended_here and (counts := TaskResult.model_validate_json(account["result"]).counts):
            performance = performance.after(counts, account)
        self.remember(current=None, performance=performance)

    def show(self, state: AgentState, task: str | None = None, asks: str = "") -> None:
        """Show the fleet what the agent is doing now, and what it asks of a person."""
        known = {"pane": self.journal.pane, "performance_metrics": self.journal.performance}
        self.publish(state=state, current_task=task, asks=redacted(asks), **known)

    def note_task(self, task: str) -> None:
        """Note the agent's task, which has made it busy when it was taken; its entry shows it with the next change."""
        self.info = self.info.model_copy(update={"current_task": task})

    def publish(self, **changes: Any) -> None:
        """Change the agent's entry in the registry; what is there already is sent with the next heartbeat."""
        before, self.info = self.info, self.info.model_copy(update=changes)
        if self.info != before:
            self.beat()

    def beat(self) -> int | None:
        """Send the agent's heartbeat; returns how many queues are demanded, or nothing while the broker is away."""
        try:
            refused = dict(self._desk.refused)
            return self._fleet.registry.heartbeat(self.info.model_copy(update={"desk_refused": refused}))
        except BrokerAway as error:
            log.warning("%s: the heartbeat was not sent: %s", self._spec.id, error)
            return None

    def beat_quietly(self) -> None:
        """Send the agent's heartbeat, from a thread that has no use for the answer."""
        self.beat()

    def leave(self) -> None:
        """Close the desk and mark the agent offline; its folder's lock goes with this process."""
        self._desk.close()
        note_event("agent.left", f"agent {self._spec.id}", why="its worker has ended")
        try:
            self._fleet.registry.leave(self.info)
        except BrokerAway as error:
            log.warning("%s: could not be marked offline: %s", self._spec.id, error)

    def _as_caller(self, pid: int) -> Caller:
        """The agent, which asks from this process in its pane."""
        return Caller(self.info.agent_id, self.info.incarnation, self.folder, role=self.info.role, pid=pid)

    def _taken(self, holder: str) -> AgentTaken:
        remedy = "Choose another --id, or stop that worker first"
        return AgentTaken(f"agent {self._spec.id} is hosted already, by {holder}. {remedy}")

    def _register(self, workdir: Path) -> AgentInfo:
        info = AgentInfo(
            agent_id=self._spec.id,
            role=self._spec.role,
            skills=self._spec.skills,
            kind=self._spec.kind,
            node=self._fleet.settings.node,
            host=socket.gethostname(),
            pid=os.getpid(),
            incarnation=0,
            workdir=str(workdir),
            tmux_socket=str(self.folder / TMUX),
            started_at=now(),
            performance_metrics=self.journal.performance,
            lifetime=self._spec.lifetime,
            parent=self._spec.parent,
        )
        former = self._fleet.registry.entry(self._spec.id)
        # We hold the folder's lock, so a former host that used this very folder is gone, whatever its heartbeat says.
        gone = former is not None and (former.host, former.tmux_socket) == (info.host, info.tmux_socket)
        return self._fleet.registry.register(info, at_least=self.journal.incarnation + 1, holder_is_gone=gone)


def hold_lock(file: Path, taken: Callable[[str], TorchError]) -> IO[str]:
    """Lock the file as long as this process lives; if another process has it, raise the error of ``taken(holder)``."""
    with usable(file):
        lock = file.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        raise taken(lock.read().strip()) from None
    lock.truncate(0)
    lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


class LivenessFile:
    """A file that a living process writes at intervals."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "liveness"
        self._open: FileIO | None = None

    def start(self, interval: float) -> None:
        """Write it from now on, as long as this process lives."""
        Loop("liveness file", self._beat, pause=interval, longest_retry_seconds=interval).start()

    def silence(self) -> float:
        """Seconds since the last beat; 0 if there never was one."""
        # By the time since the machine started: a changed clock would make a living process look silent.
        try:
            return time.monotonic() - float(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return 0.0

    def _beat(self) -> None:
        self._open = self._open or self._file.open("wb", buffering=0)
        os.pwrite(self._open.fileno(), f"{time.monotonic():020.6f}".encode(), 0)
