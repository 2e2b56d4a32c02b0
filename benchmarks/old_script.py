"""The script that Torch replaces: ``send-claude-message.sh``, with the fake program that it types into."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fakes.cli.client import FakeCli

from benchmarks.fake_agents import tmux
from benchmarks.harness import READY_SECONDS, await_true

SCRIPT = """
tmux -S "$0" send-keys -t "$1" "$2"
sleep 0.5
tmux -S "$0" send-keys -t "$1" Enter
"""


class OldScript:
    """A session with the program in a shell, as its users started it, and the script that types into it."""

    def __init__(self, folder: Path, session: str = "prod") -> None:
        self.cli = FakeCli(folder / session)
        self.socket = folder / "tmux"
        self.session = session
        self._starts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.tmux("kill-session", "-t", f"={self.session}")

    def start(self) -> None:
        """Have the program ready in a new session."""
        self.tmux("kill-session", "-t", f"={self.session}")
        ready = len(self.cli.records("ready"))
        words = ["-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "50", "-s", self.session, "-n", "agent"]
        self.tmux(*words, "bash", "--noprofile", "--norc", "-i")
        self.tmux("send-keys", "-t", f"={self.session}:", f"{self.cli.program}", "Enter")
        await_true(lambda: len(self.cli.records("ready")) > ready, READY_SECONDS, "the program is ready")

    def tmux(self, *words: str) -> str:
        """What tmux answers."""
        return tmux(self.socket, *words)

    def send(self, words: str) -> bool:
        """What the script did; it always says that the message was sent."""
        argv: Sequence[str] = ["sh", "-c", SCRIPT, str(self.socket), f"{self.session}:0", words]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
