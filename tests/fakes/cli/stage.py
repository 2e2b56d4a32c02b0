"""What a turn, the conversation and the keyboard need of the agent, and what they can wait for."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fakes.cli.children import Child
from fakes.cli.dialogs import Dialog
from fakes.cli.record import Record
from fakes.cli.scenario import Scenario
from fakes.cli.scene import Scene
from fakes.cli.steps import FOREVER
from fakes.cli.terminal import Terminal
from fakes.cli.timers import Timers


class Leave(Exception):
    """The program ends with this exit code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class LeaveForShell(Exception):
    """The program ends, and a shell takes its place."""


class StartAnew(Exception):
    """The program starts itself anew, in the same process."""


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Ended:
    """Wait until the programs have ended, but not longer."""

    children: Sequence[Child]
    seconds: float = FOREVER


Wait = Pause | Ended | Dialog
"""What a script waits for; a dialog's is sent its :class:`Choice`."""

Script = Generator[Wait, Any, None]


class Stage(Protocol):
    """The agent as its parts see it."""

    record: Record
    terminal: Terminal
    scene: Scene
    timers: Timers

    @property
    def scenario(self) -> Scenario:
        """The scenario as its file has it now."""

    def emit(self, event: str, **facts: Any) -> Sequence[Child]:
        """Start the event's hooks; returns those to wait for."""

    def run(self, command: str, given: str) -> Child:
        """Run a shell command."""

    def log(self, kind: str, text: str) -> None:
        """Add a row to the transcript: ``user``, ``assistant``, ``error`` or ``interrupted``."""

    def open_dialog(self, dialog: Dialog) -> None:
        """Have a dialog cover the composer."""

    def draw(self, *, anew: bool = False) -> None:
        """Draw the screen."""
