"""A real CLI as an agent of a fleet: its worker, its pane, and the model that it talks to."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from conftest import needs
from fakes.llm.client import FakeLLM
from home import HOMES, Home
from nodes import AgentWorker, Node, short_folder
from waiting import until

from torch_tasks import Torch
from torch_tasks.models import TaskResult, TaskState

TURN_SECONDS = 60


class Hosted:
    """One CLI's home, and the agent workers there."""

    def __init__(self, home: Home, node: Node, torch: Torch) -> None:
        self.home, self.node, self.torch = home, node, torch
        self.llm = home.llm
        node.work = home.work
        self._count = 0

    def worker(self, agent_id: str = "developer-1", **environment: str) -> AgentWorker:
        """A worker that hosts the CLI; it takes tasks when this returns."""
        environment = {**self.home.environment, "TORCH_AGENT_START_SECONDS": "90", **environment}
        return self.node.agent_worker(agent_id, kind=self.home.cli, **environment)

    def enqueue(self, prompt: str, **options: object) -> str:
        """A task for the agent; returns its id."""
        self._count += 1
        task_id = f"{self.home.cli}-{self._count}"
        self.torch.enqueue(prompt, id=task_id, **options)  # type: ignore[arg-type]
        return task_id

    def result(self, task_id: str) -> TaskResult:
        """How the task ended."""
        return self.torch.task(task_id).result(timeout=TURN_SECONDS)

    def run(self, prompt: str, **options: object) -> TaskResult:
        """A task and its end."""
        return self.result(self.enqueue(prompt, **options))

    def until_state(self, task_id: str, state: TaskState) -> None:
        """Wait until the task's record says this."""
        until(lambda: self.torch.task(task_id).status is state, f"{task_id} is {state}", TURN_SECONDS)

    def words(self) -> list[str]:
        """The tasks' own words in each prompt that the model received, without the footer."""
        return [words(prompt) for prompt in self.llm.prompts(self.home.key)]


def words(prompt: str) -> str:
    """A prompt without its footer."""
    body, mark, footer = prompt.rpartition("\n\n[torch task ")
    assert mark and "\n" not in footer, prompt
    return body


@contextlib.contextmanager
def at_home(cli: str, node: Node, torch: Torch) -> Iterator[Hosted]:
    """The CLI at a home of its own, with a fake model of its own."""
    needs(cli)
    folder = short_folder()
    with FakeLLM(folder / "llm") as llm:
        home = HOMES[cli](folder / "home", llm)
        try:
            yield Hosted(home, node, torch)
        finally:
            node.end_workers()
            home.clear()
    shutil.rmtree(folder)
