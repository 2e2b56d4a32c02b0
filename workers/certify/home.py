"""A person's home for a program and its fake model, as bare as can be: nothing of the user's own, a dummy key."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import psutil

from torch_tasks.errors import AgentUnavailable
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.fake_model.steps import Call, Step, Text
from torch_tasks.workers.programs.config import CertifyConfig
from torch_tasks.workers.tmux.pane import AgentPane

_KEY_SECONDS = 0.2
"""Between the keys that a person presses."""


class Home(ABC):
    """The home of one agent, its folder to work in, and how its CLI is started there."""

    cli: str
    flags: ClassVar[tuple[str, ...]] = ()
    created: ClassVar[str] = "There it is."
    """What is on the screen as soon as :meth:`creates` is done."""
    exit_keys: tuple[str, ...] = ("C-c", "C-c")
    """They leave the CLI if its composer is empty."""

    model: str | None = None
    """What the program calls the fake model; None if it needs no name for it."""

    def __init__(self, folder: Path, llm: FakeLLM, agent_id: str = "developer-1", path: str | None = None) -> None:
        """``path`` replaces this process's own PATH."""
        self.folder = folder
        self._path = path or os.environ["PATH"]
        self.work = folder / "work"
        self.llm = llm
        self.key = f"sk-{agent_id}"
        self.work.mkdir(parents=True)
        self.temporaries = folder / "tmp"
        """Where the CLI puts what is temporary: some never remove it."""
        self.temporaries.mkdir()
        self.file(".gitconfig", "[user]\nname = A Person\nemail = person@example.com\n")
        subprocess.run(["git", "init", "-q", str(self.work)], check=True, env=self.environment)
        self.settle()

    @property
    def command(self) -> list[str]:
        """What starts the CLI."""
        return [self.cli, *self.flags]

    @property
    def environment(self) -> dict[str, str]:
        """All that the CLI sees of the world."""
        bare = {"HOME": str(self.folder), "PATH": self._path, "LANG": "C.UTF-8", "TZ": "UTC", "SHELL": "/bin/bash"}
        return {**bare, "TMPDIR": str(self.temporaries), "NO_PROXY": "127.0.0.1", **self.variables}

    @property
    @abstractmethod
    def variables(self) -> dict[str, str]:
        """The CLI's own variables."""

    @abstractmethod
    def settle(self) -> None:
        """Write the CLI's files, as if its person had answered all its questions."""

    @abstractmethod
    def is_ready(self, pane: AgentPane) -> bool:
        """The CLI has started and has an empty composer."""

    @abstractmethod
    def shell(self, command: str) -> Call:
        """The model's call of this CLI's shell tool; the CLI asks its person first."""

    def creates(self, name: str) -> list[Step]:
        """What the model does to have a file of this name in the folder; the CLI asks its person first."""
        return [self.shell(f"touch {name}"), Text(self.created)]

    @abstractmethod
    def asks(self, pane: AgentPane) -> bool:
        """The CLI asks for a permission; Enter grants it."""

    # ── what is special when it is tried ─────────────────────────────────────────────────────────────────────────────

    gives_up: bool = False
    """It soon tells of an overloaded model; others try again for longer than anybody waits here."""
    leaves_composer_alone: ClassVar[bool] = False
    """Prompts go past its composer, which is a person's alone."""

    way: ClassVar[str] = ""
    """How it is driven, if not in the way of the kind that has its name."""
    shows_silent_work: ClassVar[bool] = True
    """It shows that it works before its model has said a word."""

    compact_command: ClassVar[str] = ""
    """Has it make its conversation shorter; empty if it does so when its model finds a prompt too long."""

    def kept(self, words: str) -> str:
        """The words of a prompt as the CLI keeps them."""
        return words

    def choosing(self, question: str, *choices: str) -> Call:
        """The model's call by which the CLI asks its person to choose."""
        raise NotImplementedError(f"{self.cli} asks no questions")

    def is_resumable(self) -> bool:
        """Whether the CLI, if it is killed now, is able to go on with its conversation."""
        return True

    def leave(self, pane: AgentPane) -> None:
        """Press the keys that leave the CLI."""
        with contextlib.suppress(AgentUnavailable):  # it has ended before the last of them
            for key in self.exit_keys:
                pane.press(key)
                time.sleep(_KEY_SECONDS)

    def file(self, name: str, content: str | dict[str, Any]) -> Path:
        """Write a file below the home."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def clear(self) -> None:
        """End whatever runs there, and forget the folder."""
        end_processes(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def end_processes(home: Path) -> None:
    """End whatever runs with this home, wherever it was started."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOME") == str(home):
                process.kill()


class OwnHome(Home):
    """A home for a user's own program, as the kind's TOML says."""

    def __init__(self, kind: str, config: CertifyConfig, folder: Path, llm: FakeLLM) -> None:
        self._config = config
        self.cli = kind
        self.model = config.model
        self.exit_keys = config.exit
        self.gives_up = config.gives_up
        super().__init__(folder, llm)

    @property
    def variables(self) -> dict[str, str]:
        return {name: self._filled(value) for name, value in self._config.environment.items()}

    def settle(self) -> None:
        for name, content in self._config.files.items():
            self.file(name, self._filled(content))

    def _filled(self, text: str) -> str:
        places = {"url": self.llm.url, "openai_url": self.llm.openai_url, "key": self.key}
        for name, value in {**places, "home": str(self.folder), "work": str(self.work)}.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def is_ready(self, pane: AgentPane) -> bool:
        raise NotImplementedError("only its kind's rules tell")

    def asks(self, pane: AgentPane) -> bool:
        raise NotImplementedError("only its kind's rules tell")

    def shell(self, command: str) -> Call:
        tool = self._config.tool
        assert tool, "without a tool, nothing is asked for"
        return Call(tool.name, {name: value.replace("{command}", command) for name, value in tool.input.items()})
