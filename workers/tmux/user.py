"""The tmux server of the person who calls, which Torch neither starts nor attaches to."""

from __future__ import annotations

import os
from pathlib import Path

from torch_tasks.errors import AgentUnavailable
from torch_tasks.workers.tmux.control import ControlClient
from torch_tasks.workers.tmux.server import AgentServer, Answer


class UserServer(AgentServer):
    """The server that a plain ``tmux`` would speak with here, or the one at a socket.

    Each command is a process of its own: nothing attaches, so that no client is seen and no hook of the user's runs.
    """

    def __init__(self, socket: Path | None = None) -> None:
        super().__init__(socket or _socket())

    def ask(self, *words: str) -> Answer | None:
        """What tmux answers; None if no server runs."""
        answer = self.process(words)
        if answer.ok:
            return answer
        said = " ".join(answer.stderr)
        if said.startswith(("no server running", "error connecting")):
            return None
        raise AgentUnavailable(f"tmux refused {words[0]} at {self.socket}: {said}")

    def _connected(self) -> ControlClient | None:
        return None


def _socket() -> Path:
    """Where tmux looks; but the server of an agent's pane holds nothing but that pane, and is not meant."""
    inside = os.environ.get("TMUX", "").split(",")[0]
    if inside and "TORCH_AGENT_ID" not in os.environ:
        return Path(inside)
    folder = Path(os.environ.get("TMUX_TMPDIR") or "/tmp")  # noqa: S108 - tmux's own place
    if not folder.is_dir():
        folder = Path("/tmp")  # noqa: S108 - and so tmux does
    return folder.resolve() / f"tmux-{os.getuid()}" / "default"
