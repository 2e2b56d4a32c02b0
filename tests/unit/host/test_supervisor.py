"""The supervisor of an agent worker: what it makes of errors of its own and of crashes of the worker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentSpec, Performance
from torch_tasks.model.node import KeptState
from torch_tasks.settings import Settings
from torch_tasks.state_folder import CRASHES, JOURNAL
from torch_tasks.system.tally import tally
from torch_tasks.workers.folders import AgentJournal
from torch_tasks.workers.node.supervisor import WorkerSupervisor


class FailingOnce:
    """Processes of which the first look fails; at the next one, the node worker leaves."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.looks = 0
        self.supervisor: Any = None
        self.stopped: list[str] = []

    def find(self, name: str) -> None:
        self.looks += 1
        if self.looks == 1:
            raise self.error
        self.supervisor.leaving.set()

    def start(self, name: str, *_: Any, **__: Any) -> Any:
        class Worker:
            pid = 7
            process = staticmethod(lambda: None)

        return Worker

    def stop(self, name: str, grace: float) -> None:
        self.stopped.append(name)

    def why_not_start(self, kind: str) -> str:
        return ""


@pytest.mark.parametrize("error", [OSError("no process"), StateFolderUnusable("damaged"), ValueError("a fault")])
def test_a_supervisor_goes_on_after_an_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    processes: Any = FailingOnce(error)
    configuration = Settings(state_dir=tmp_path, restart_backoff_seconds=0.01)
    supervisor = WorkerSupervisor(AgentSpec(id="qa-1", role="qa"), configuration, processes)
    processes.supervisor = supervisor
    monkeypatch.setattr(supervisor, "_processes", processes)
    supervisor.run()
    assert processes.looks == 2
    assert processes.stopped == ["agent-qa-1"]
    assert supervisor.state is KeptState.RUNNING
    assert f"qa-1: its supervisor tries again: {error}" in caplog.text
    assert ("Traceback" in caplog.text) is isinstance(error, ValueError)


class CrashingAtOnce:
    """Processes of which each worker dies at once; before it does, its agent ends as many tasks as its turn says."""

    pid = 7
    log = Path("log")

    def __init__(self, folder: Path, tasks_done: list[int]) -> None:
        self.folder = folder
        self.tasks_done = tasks_done
        self.starts = 0
        self.ended = 0
        self.supervisor: Any = None

    def find(self, name: str) -> None: ...

    def start(self, name: str, *_: Any, **__: Any) -> Any:
        return self

    def process(self) -> None:
        self.ended += self.tasks_done[self.starts]
        journal = AgentJournal(agent_id="qa-1", kind="shell", performance=Performance(failed=self.ended))
        journal.write(self.folder / JOURNAL)
        self.starts += 1
        if self.starts == len(self.tasks_done):
            self.supervisor.leaving.set()

    def last_words(self) -> str:
        return "the last words"

    def stop(self, name: str, grace: float) -> None: ...

    def worker_ended(self, agent_id: str, why: str) -> None: ...

    def why_not_start(self, kind: str) -> str:
        return ""


@pytest.mark.parametrize(
    ("tasks_done", "state", "starts"),
    [
        ([0] * 9, KeptState.QUARANTINED, 3),
        ([7, 0, 0, 0, 0], KeptState.QUARANTINED, 3),
        ([1] * 9, KeptState.RUNNING, 9),
        ([0, 0, 2, 0, 1, 0, 0, 0, 0], KeptState.QUARANTINED, 7),
    ],
    ids=["no work", "work before the first crash only", "work before each crash", "work now and then"],
)
def test_quarantine_comes_after_so_many_crashes_without_a_task_in_between(
    tasks_done: list[int], state: KeptState, starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path, restart_backoff_seconds=0.001, quarantine_crashes=3)
    folder = settings.state.agent("qa-1")
    folder.mkdir(parents=True)
    crashing: Any = CrashingAtOnce(folder, tasks_done)
    supervisor = WorkerSupervisor(AgentSpec(id="qa-1", role="qa"), settings, crashing)
    crashing.supervisor = supervisor
    monkeypatch.setattr(supervisor, "_processes", crashing)
    supervisor.run()
    assert (supervisor.state, crashing.starts) == (state, starts)


def test_another_node_worker_counts_the_crashes_on_until_the_agent_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path, restart_backoff_seconds=0.001, quarantine_crashes=3)
    folder = settings.state.agent("qa-1")
    folder.mkdir(parents=True)

    def crash(times: int) -> WorkerSupervisor:
        crashing: Any = CrashingAtOnce(folder, [0] * times)
        supervisor = WorkerSupervisor(AgentSpec(id="qa-1", role="qa"), settings, crashing)
        crashing.supervisor = supervisor
        monkeypatch.setattr(supervisor, "_processes", crashing)
        supervisor.run()
        return supervisor

    for _ in range(2):  # the last start of a node worker that leaves is not counted
        assert crash(2).state is KeptState.RUNNING
    given_up = crash(2)
    assert given_up.state is KeptState.QUARANTINED
    assert given_up.reason.startswith("3 crashes in a row")
    (folder / CRASHES).write_text("not json")
    assert crash(2).state is KeptState.RUNNING
    given_up.forget_crashes()
    assert crash(3).state is KeptState.RUNNING


@pytest.mark.parametrize(("lived", "paused"), [(0.0, 10.0), (4.0, 6.0), (11.0, 0.0)])
def test_the_pause_after_a_crash_counts_from_the_start_of_the_worker_that_died(
    lived: float, paused: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path, restart_backoff_seconds=10.0)
    folder = settings.state.agent("qa-1")
    crashing: Any = CrashingAtOnce(folder, [0])
    supervisor = WorkerSupervisor(AgentSpec(id="qa-1", role="qa"), settings, crashing)
    waited: list[float] = []
    monkeypatch.setattr(supervisor.leaving, "wait", waited.append)
    supervisor._handle_crash(crashing, lived)
    assert waited == [pytest.approx(paused, abs=2.0)]  # a fifth of the whole, to spread the starts


def test_it_is_counted_how_long_an_agent_was_without_a_worker(tmp_path: Path) -> None:
    supervisor = WorkerSupervisor(
        AgentSpec(id="qa-1", role="lost"), Settings(state_dir=tmp_path), FailingOnce(OSError())
    )
    liveness = tmp_path / "agents" / "qa-1" / "liveness"
    liveness.parent.mkdir(parents=True)

    def counted() -> list[float] | None:
        return tally().series().get((metrics.WORKER_BACK_SECONDS.name, ("lost",)))

    died = supervisor._died_at = time.monotonic() - 10
    liveness.write_text(str(died - 1))
    supervisor._note_return()
    assert counted() is None  # that was the dead worker's heart
    for beat in (died + 4, died + 9):
        liveness.write_text(str(beat))
        supervisor._note_return()
    *_, count, seconds = counted() or [0.0, 0.0]
    assert (count, round(seconds, 1)) == (1, 4.0)
