"""A real CLI as an agent of the fleet: hosted by a real agent worker, its model the fake one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import TaskResult, Torch
from torch_tasks.client import Task
from torch_tasks.state_folder import HOME, JOURNAL
from torch_tasks.workers.certify.fake_model.client import FakeLLM, ModelRequest
from torch_tasks.workers.certify.home import Home, end_processes
from torch_tasks.workers.folders import AgentJournal
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.prompt import belongs_to, unwrapped
from torch_tasks.workers.sandbox.decision import Boxing

SANDBOX = os.environ.get("TORCH_TEST_SANDBOX", "auto")
AWAY_SECONDS = 25.0
"""After so long Torch has a terminal back that a person had taken over."""
SECONDS = 120
"""These programs take their time on a busy machine, and CI's is."""


class Hosted:
    """One agent, and what its model received."""

    def __init__(self, home: Home, node: Node, torch: Torch, agent_id: str, **environment: str) -> None:
        self.home = home
        self.torch = torch
        self._node = node
        self._agent_id = agent_id
        pace = {
            "TORCH_SANDBOX": SANDBOX,
            # Codex trusts no helper of its own below a folder of temporary files, where these homes lie.
            "TORCH_SANDBOX_WRITABLE": json.dumps([str(home.temporaries)]),
            "TORCH_AGENT_START_SECONDS": "150",
            "TORCH_ACCOUNT_PAUSE_SECONDS": "2",
            "TORCH_PERSON_AWAY_SECONDS": str(AWAY_SECONDS),
        }
        # An agent's pane is a terminal also on a machine that says it is one of continuous integration.
        self._environment = {**home.environment, "CI": "true", "GITHUB_ACTIONS": "true", **pace, **environment}
        self.host()

    @property
    def llm(self) -> FakeLLM:
        return self.home.llm

    def host(self) -> AgentWorker:
        """Start a worker for it, the first or the next."""
        self.worker = self._node.agent_worker(
            self._agent_id, kind=self.home.cli, workdir=self.home.work, **self._environment
        )
        return self.worker

    @property
    def is_boxed(self) -> bool:
        """Whether its program runs in a box, as its worker has noted."""
        journal = AgentJournal.read(self.worker.folder / JOURNAL)
        return journal is not None and Boxing.read(journal.sandbox).is_boxed

    def outside(self, path: Path) -> Path:
        """Where a path below its home lies; in a box, all but the folders to work in is the agent's own."""
        return self.worker.folder / HOME / path.relative_to(self.home.folder) if self.is_boxed else path

    def kill_machine(self) -> None:
        """Kill its worker, its terminal, its program and all that these started, as if the power had failed."""
        end_processes(self.home.folder)
        self.worker.process.wait()
        until(lambda: not self.worker.has_pane(), "the terminal is gone")

    def give(self, prompt: str, **options: Any) -> Task:
        """Give it a task."""
        return self.torch.enqueue(prompt, agent=self._agent_id, **options)

    def do(self, prompt: str, **options: Any) -> TaskResult:
        """Have it do a task; returns how that ended."""
        return self.give(prompt, **options).result(timeout=SECONDS)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for the condition; if it does not come true, the failed test shows the screen."""
        until(condition, what, SECONDS, self.worker.screen)

    def type_until(self, condition: Callable[[], object], key: str) -> None:
        """Press the key as a person does, once a second, until it has done what it should."""
        self.try_until(condition, lambda: self.worker.tmux("send-keys", key), key)

    def try_until(self, condition: Callable[[], object], act: Callable[[], object], what: str) -> None:
        """Do that once a second, until it has done what it should."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what} does nothing; the pane shows:\n{self.worker.screen()}"
            act()
            with contextlib.suppress(AssertionError):
                until(condition, what, 1)

    def await_new_program(self, before: tuple[str, int]) -> None:
        """Wait until another program than the one ``before`` is in the pane."""

        def is_new() -> bool:
            now = self.program()
            return now is not None and now != before

        until(is_new, "it is started anew", SECONDS)

    def program(self) -> tuple[str, int] | None:
        """Its pane and the process in it; None between the end of a program and the start of the next."""
        with contextlib.suppress(subprocess.CalledProcessError, ValueError):
            return self.worker.pane()
        return None

    def received(self, task_id: str) -> list[str]:
        """Every prompt of this task that the model received, exactly, but for what its program puts around it."""
        wrappers, prompts = kind_config(self.home.cli).prompt.wrappers, self.llm.prompts(self.home.key)
        return [unwrapped(prompt, wrappers) for prompt in prompts if belongs_to(prompt, f"task {task_id}")]

    def requests(self, task_id: str) -> list[ModelRequest]:
        """Every request for this task, but those of the CLI's own."""
        requests = self.llm.requests(self.home.key)
        return [
            request
            for request in requests
            if not request.side_request and belongs_to(request.prompt, f"task {task_id}")
        ]

    def notes(self, task: Task) -> list[str]:
        """The notes in the task's history."""
        return [entry.note for entry in task.history() if entry.note]
