"""Records the screens of real CLIs, as Torch starts them, for ``tests/unit/programs/test_screens.py``.

``python -m screens.record claude …``, with ``tests`` on PYTHONPATH, the CLIs installed by ``.ci/real-agents`` and no
network: ``.ci/loopback-only``. The module of a CLI's name in this folder leads it through its screens.

A recording is a text file: the release, what the rules must read as JSON, and the screen with its escape sequences.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from machine import short_folder
from waiting import until

from torch_tasks.model.agent import AgentSpec, AgentState
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.homes import HOMES, NewToClaude
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.kind import program_of
from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.tmux.pane import AgentPane

SCREENS = Path(__file__).parent
_SECONDS = 60


class Stage:
    """One real CLI in a pane, at a new user's home."""

    def __init__(self, cli: str, folder: Path, llm: FakeLLM) -> None:
        from installed import PATH

        self.llm = llm
        self.home = {**HOMES, "claude": NewToClaude}[cli](folder / "home", llm, path=PATH)
        os.environ.update(self.home.environment)  # as it is in the worker of such an agent
        (folder / "agent").mkdir()
        agent = program_of(AgentSpec(id="developer-1", role="developer", kind=cli), folder / "agent", self.home.work)
        assert isinstance(agent, CodingAgent)
        self.agent = agent
        self._cli = cli
        self._release = self._run("--version").split()
        self.saved: list[str] = []

    def start(self, **variables: str) -> None:
        """Start the CLI as Torch does, with these variables besides."""
        launch = self.agent.launch()
        environment = {**self.home.environment, **self.agent.environment(), **variables}
        socket = self.agent.folder / "tmux"
        self.pane = AgentPane.start(socket, "developer-1", launch, workdir=self.home.work, environment=environment)

    def wait_ready(self) -> None:
        """Wait until it takes a prompt, its dialogs answered."""
        until(lambda: self.agent.get_ready(self.pane), "it is ready", _SECONDS)

    def send(self, text: str) -> None:
        """Give it a prompt, without waiting for the answer."""
        until(lambda: self.agent.is_free(self.pane), "it is free", _SECONDS, self.pane.screen)
        self.pane.paste(text)
        until(lambda: not self.agent.is_free(self.pane), "the prompt is in the composer", _SECONDS)
        time.sleep(0.5)
        self.pane.press("Enter")

    def save(
        self,
        name: str,
        state: AgentState,
        *,
        shows: str = "",
        composer: str | None = "",
        question: str | None = None,
        choices: tuple[str, ...] = (),
    ) -> None:
        """Record the screen as soon as it ``shows`` this, with what the rules must read in it.

        ``composer`` is None if the screen shows none.
        """
        until(lambda: shows in self.pane.screen(), f"{shows!r} is on the screen", _SECONDS, self.pane.screen)
        time.sleep(0.3)
        screen = Screen.of(self.pane)
        assert screen
        expected = {
            "state": state,
            "composer": composer,
            "question": question,
            "choices": choices,
            "title": screen.title,
            "cursor": screen.cursor,
        }
        release = next(word for word in self._release if word[0].isdigit())
        drawn = "\n".join(self.pane.drawn()).rstrip("\n")
        path = SCREENS / self._cli / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{self._cli} {release}\n{json.dumps(expected, ensure_ascii=False)}\n{drawn}\n")
        self.saved.append(name)

    def close(self) -> None:
        """End the CLI."""
        self.pane.end()
        self.home.clear()

    def _run(self, *words: str) -> str:
        argv = [self.home.command[0], *words]
        done = subprocess.run(argv, env=self.home.environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout


def record(cli: str) -> list[str]:
    """Record all screens of this CLI; returns their names."""
    folder = short_folder()
    with FakeLLM(folder / "llm") as llm:
        stage = Stage(cli, folder, llm)
        try:
            import_module(f"screens.{cli}").play(stage)
        finally:
            stage.close()
            shutil.rmtree(folder)
    return stage.saved


if __name__ == "__main__":
    sys.path.append(str(SCREENS.parent / "real_agents"))
    for name in sys.argv[1:]:
        print(name, *record(name))
