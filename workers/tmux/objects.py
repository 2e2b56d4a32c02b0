"""An agent's tmux server as libtmux's objects. No process of Torch's loads them by itself: that takes 0.1 s."""

from __future__ import annotations

from typing import Any

import libtmux

from torch_tasks.workers.tmux.server import CONFIG, AgentServer, TmuxAnswer


class ServerObjects(libtmux.Server):
    """Its sessions, windows and panes, whose commands all go through the agent's own server."""

    def __init__(self, server: AgentServer) -> None:
        super().__init__(socket_path=server.socket, config_file=str(CONFIG))
        self._server = server

    def cmd(  # type: ignore[override]  # libtmux's own Server.cmd has this signature, its mixin a wider one
        self, cmd: str, *args: Any, target: str | int | None = None
    ) -> TmuxAnswer:
        return self._server.cmd(cmd, *args, target=target)
