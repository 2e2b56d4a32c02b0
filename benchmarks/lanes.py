"""Two ways of sending to a fake program, through Torch and by the old script; a person can reach its pane, too."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import suppress
from threading import Lock
from typing import Any

from fakes.cli.client import FakeCli

from benchmarks.fake_agents import FakeAgent
from benchmarks.harness import READY_SECONDS, Stage, await_true
from benchmarks.old_script import OldScript
from torch_tasks import Task

LATE_SECONDS = 5.0
"""How long after the script's end its words may yet arrive."""


class Lane(ABC):
    """One program, and one way of sending to it."""

    def __init__(self, name: str, cli: FakeCli) -> None:
        self.name = name
        self.cli = cli
        self._reading = Lock()

    @abstractmethod
    def send(self, words: str) -> bool:
        """Send the words; returns whether that is said to have succeeded, once nothing more is to be expected."""

    @abstractmethod
    def tmux(self, *words: str) -> str:
        """What a person does at the pane, by tmux."""

    @abstractmethod
    def held(self) -> bool:
        """The sender says that it waits."""

    @abstractmethod
    def exact(self, received: str, words: str) -> bool:
        """The model received these words and nothing else of anybody's."""

    @abstractmethod
    def clear_up(self) -> None:
        """Have the program ready for the next fault, whatever this one left."""

    def press(self, *keys: str) -> None:
        """A person presses keys; Escape and what follows at once would be another key."""
        self.tmux("send-keys", "--", *keys)
        time.sleep(0.1)

    def type(self, text: str) -> None:
        """A person types."""
        self.tmux("send-keys", "-l", "--", text)

    def received(self, since: int = 0) -> list[dict[str, Any]]:
        """The prompts that the model received since so many."""
        with self._reading:
            return self.cli.records("submitted")[since:]


class TorchLane(Lane):
    """Through Torch."""

    def __init__(self, stage: Stage, agent: FakeAgent) -> None:
        super().__init__("Torch", agent.cli)
        self._stage = stage
        self._agent = agent
        self._task: Task | None = None

    def send(self, words: str) -> bool:
        self._task = task = self._stage.torch.enqueue(words, agent=self._agent.id, max_retries=0)
        return task.result(READY_SECONDS).succeeded

    def tmux(self, *words: str) -> str:
        return self._agent.tmux(*words)

    def held(self) -> bool:
        return self._task is not None and self._task.status == "waiting"

    def exact(self, received: str, words: str) -> bool:
        body, _, footer = received.rpartition("\n\n[torch task ")
        if body.startswith("You are "):  # a new program was briefed first
            body = body[body.index(words) :] if words in body else ""
        return body.removeprefix("The task, word for word:\n") == words and "\n" not in footer

    def clear_up(self) -> None:
        """Torch clears up itself."""


class ScriptLane(Lane):
    """Through the old script."""

    def __init__(self, old: OldScript) -> None:
        super().__init__("the old script", old.cli)
        self._old = old

    def send(self, words: str) -> bool:
        before = len(self.received())
        said = self._old.send(words)
        with suppress(TimeoutError):
            await_true(lambda: any(words in record["text"] for record in self.received(before)), LATE_SECONDS, "late")
        return said

    def tmux(self, *words: str) -> str:
        return self._old.tmux(words[0], "-t", f"={self._old.session}:", *words[1:])

    def held(self) -> bool:
        return False

    def exact(self, received: str, words: str) -> bool:
        return received == words

    def clear_up(self) -> None:
        self._old.start()
