"""What the tests of tmux share: text that is easily mangled, and panes that end with their test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import short_folder

from torch_tasks.workers.tmux.pane import AgentPane
from torch_tasks.workers.tmux.server import AgentServer

HOSTILE_LINES = [
    "plain words",
    "it's \"quoted\" 'twice' '",
    "$HOME ${HOME} $(id) `id`",
    "ends with a semicolon;",
    "ends with an escaped one\\;",
    ";",
    "-leading dash",
    "--",
    "Enter",
    "C-c",
    "#{pane_id} #S #(id) ##",
    "%H:%M %0 %end 1 2 1",
    "~ ~root {curly} [x] * ? ! & | < >",
    "back\\slash \\n \\",
    "emoji 🚒 é 漢字 e\u0301",
    "  spaces around  ",
    "no\u00a0break",
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path; the servers at the sockets ``s`` in it end with the test."""
    path = short_folder().resolve()
    yield path
    for socket in path.rglob("s"):
        AgentPane(AgentServer(socket), "%0").end()
    shutil.rmtree(path)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., AgentPane]]:
    """Starts panes at ``folder/s``, and disconnects from them at the end."""
    panes: list[AgentPane] = []

    def run(*command: str, environment: dict[str, str] | None = None, **options: object) -> AgentPane:
        options = {"workdir": folder, **options}
        pane = AgentPane.start(
            folder / "s", "developer-1", command, environment={**os.environ, **(environment or {})}, **options
        )
        panes.append(pane)
        return pane

    yield run
    for pane in panes:
        pane.close()
