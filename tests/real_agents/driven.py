"""A real CLI in a real pane, used as a careful person uses it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from waiting import until

from torch_tasks.errors import AgentUnavailable
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook

START_SECONDS = 90
ANSWER_SECONDS = 90
ENTER_SECONDS = 15
LEAVE_SECONDS = 8
PASTED_SECONDS = 0.5
"""How long after a paste Enter submits it, in each of the CLIs."""


class Driven:
    """One CLI at home, from its launch to its exit."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.pane = AgentPane.start(
            folder / "tmux", "developer-1", home.command, workdir=home.work, environment=home.environment
        )

    def wait_ready(self) -> None:
        """Wait until the CLI has started and takes a prompt."""
        until(lambda: self.home.is_ready(self.pane), f"{self.home.cli} is ready", START_SECONDS, self.pane.screen)

    def send(self, text: str) -> None:
        """Give the CLI a prompt, and wait until the model has received something of this agent."""
        before, empty = self._prompts(), self.pane.screen()
        self.pane.paste(text)
        self.wait(lambda: self.pane.screen() != empty, "the text is in the composer")
        time.sleep(PASTED_SECONDS)
        self.wait(lambda: self._entered(before), "the prompt is at the model")

    def _entered(self, before: int) -> bool:
        """Press Enter; one too soon after the paste is taken as a part of it, and one too many does nothing."""
        self.pane.press("Enter")
        with contextlib.suppress(AssertionError):
            until(lambda: self._prompts() > before, "the prompt is at the model", ENTER_SECONDS)
        return self._prompts() > before

    def _prompts(self) -> int:
        return len(self.home.llm.prompts(self.home.key))

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for the condition; if it does not come true, the failed test shows the screen."""
        until(condition, what, ANSWER_SECONDS, self.pane.screen)

    def wait_shown(self, text: str) -> None:
        """Wait until the text is on the screen."""
        self.wait(lambda: text in self.pane.screen(), f"{text!r} is on the screen")

    def leave(self) -> int | None:
        """Leave the CLI by its keys; returns its exit code."""
        self.wait(self._left, "it has ended")
        return self._look().dead_status

    def _left(self) -> bool:
        """Press the keys; a CLI that is still ending a turn takes them as an interrupt, or not at all."""
        with contextlib.suppress(AgentUnavailable):  # it ended meanwhile
            for key in self.home.exit_keys:
                self.pane.press(key)
                time.sleep(0.2)
        with contextlib.suppress(AssertionError):
            until(lambda: self._look().dead, "it has ended", LEAVE_SECONDS)
        return self._look().dead

    def _look(self) -> PaneLook:
        look = self.pane.look()
        assert look, "the pane is gone"
        return look

    def close(self) -> None:
        """End the pane and every process in it."""
        self.pane.end()
