"""The supervisor of an agent worker goes on after an error: without it, the agent would never be started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.node import KeptState
from torch_tasks.settings import Settings
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


@pytest.mark.parametrize("error", [OSError("no process"), StateFolderUnusable("damaged"), ValueError("a fault")])
def test_a_supervisor_goes_on_after_an_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    callbacks: Any = None
    processes: Any = FailingOnce(error)
    configuration = Settings(state_dir=tmp_path, restart_backoff_seconds=0.01)
    supervisor = WorkerSupervisor(AgentSpec(id="qa-1", role="qa"), configuration, callbacks)
    processes.supervisor = supervisor
    monkeypatch.setattr(supervisor, "_processes", processes)
    supervisor.run()
    assert processes.looks == 2
    assert processes.stopped == ["agent-qa-1"]
    assert supervisor.state is KeptState.RUNNING
    assert f"qa-1: its supervisor tries again: {error}" in caplog.text
    assert ("Traceback" in caplog.text) is isinstance(error, ValueError)
