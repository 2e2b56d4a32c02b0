"""What the tests of the fake coding agent share: the agent in its pane, and waits for what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.cli import scenario as given
from fakes.cli import steps as do
from fakes.cli.client import FakeCli
from fakes.cli.scenario import Scenario
from tmux_parts import folder as folder
from tmux_parts import start as start
from waiting import until

from torch_tasks.workers.tmux.pane import AgentPane, PaneLook

FOREVER = do.Work(600)


def turn(*steps: do.Step, match: str = "", times: int = 0) -> given.Turn:
    return given.Turn(steps, match, times)


class Played:
    """A fake agent in its pane."""

    def __init__(self, cli: FakeCli, pane: AgentPane) -> None:
        self.cli = cli
        self.pane = pane

    def write(self, text: str) -> None:
        """Paste the text, and wait until it was read."""
        before = len(self.cli.bytes())
        self.pane.paste(text)
        until(lambda: self.cli.bytes()[before:].endswith(b"\x1b[201~"), "the paste was read")

    def prompt(self, text: str) -> None:
        """Paste the text, press Enter, and wait until the model got it."""
        before = len(self.cli.submitted())
        self.write(text)
        self.pane.press("Enter")
        until(lambda: len(self.cli.submitted()) > before, "the prompt was submitted")

    def press(self, *keys: str) -> None:
        """Press the keys, and wait after each until it was read."""
        for key in keys:
            before = len(self.cli.bytes())
            self.pane.press(key)
            until(lambda before=before: len(self.cli.bytes()) > before, f"{key} was read")

    def type(self, text: str) -> None:
        """Type the text, character by character."""
        before = len(self.cli.bytes())
        assert self.pane.server.cmd("send-keys", "-l", "--", text, target=self.pane.pane_id).ok
        until(lambda: len(self.cli.bytes()) >= before + len(text.encode()), "the text was read")

    def sees(self, *texts: str) -> str:
        """The screen, once all the texts are on it."""

        def look() -> str | None:
            screen = self.pane.screen()
            return screen if all(text in screen for text in texts) else None

        return until(look, f"on the screen: {texts}")

    def footer(self, text: str) -> None:
        """Wait until this is the last line of the screen."""
        until(lambda: self.pane.screen().splitlines()[-1].strip() == text, f"the footer is {text!r}")

    def recorded(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The record of this kind with this number, once it is there."""
        return until(lambda: self.cli.records(kind)[count - 1 : count], f"{count} times recorded: {kind}")[0]

    def exit_code(self) -> int:
        """Its exit code, once it has ended; tmux may see its end before its code."""
        code = until(lambda: [self.look().dead_status] if self.look().dead_status is not None else [], "it has ended")
        return code[0]

    def title(self) -> str:
        return self.pane.server.cmd("display-message", "-p", "#{pane_title}", target=self.pane.pane_id).stdout[0]

    def look(self) -> PaneLook:
        look = self.pane.look()
        assert look
        return look


@pytest.fixture
def play(folder: Path, start: Callable[..., AgentPane]) -> Callable[..., Played]:
    """Starts the fake agent with a scenario, and waits until it is ready, or with ``ready=False`` only started."""

    def play(scenario: Scenario | None = None, *, ready: bool = True, env: dict[str, str] | None = None) -> Played:
        hooks = folder / "hooks.json"
        cli = FakeCli(folder / "fake", scenario, hooks=hooks if hooks.exists() else None)
        played = Played(cli, start(*cli.argv, environment=env))
        played.recorded("ready" if ready else "started")
        return played

    return play
