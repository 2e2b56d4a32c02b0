"""A real CLI in a box that reaches the hosts on a list, through Torch's proxy: its model's host, and no other."""

from __future__ import annotations

import socket
import socketserver
import threading
from functools import cached_property

import pytest
from hosted import SANDBOX, Hosted
from waiting import until

from torch_tasks.workers.certify.fake_model.steps import Text
from torch_tasks.workers.certify.homes import ClaudeHome
from torch_tasks.workers.sandbox.ability import why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SANDBOX == "never" or why_not() is not None, reason="no program is boxed here"),
]


class ModelsHost(socketserver.ThreadingTCPServer):
    """The fake model's host, which is not the one that every program reaches past a proxy."""

    daemon_threads = True

    def __init__(self, model: int) -> None:
        self.model = model
        super().__init__(("127.0.0.2", 0), _Connection)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def place(self) -> str:
        return f"127.0.0.2:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    server: ModelsHost

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.model)) as model:
            threading.Thread(target=_pour, args=(model, self.request), daemon=True).start()
            _pour(self.request, model)


def _pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()


class ListedClaude(ClaudeHome):
    """Whose agent reaches its model's host alone."""

    @cached_property
    def host(self) -> ModelsHost:
        return ModelsHost(self.llm.port)

    @property
    def variables(self) -> dict[str, str]:
        own = {"ANTHROPIC_BASE_URL": f"http://{self.host.place}", "TORCH_SANDBOX_NETWORK": self.host.place}
        return {**super().variables, **own}

    def clear(self) -> None:
        super().clear()
        self.host.shutdown()
        self.host.server_close()


class TestListedHosts:
    home = ListedClaude

    def test_its_model_is_reached_and_another_host_is_not(self, agent: Hosted) -> None:
        assert isinstance(agent.home, ListedClaude)
        assert agent.is_boxed
        allowed = agent.home.host.place
        refused, past_it = "127.0.0.3:80", f"curl -sS -m 9 --noproxy '*' http://{allowed}/"
        looks = f"curl -sS -m 9 http://{refused}/; {past_it}; env | grep -i '^https_proxy'"
        agent.llm.on("look around", agent.home.shell(looks), Text("Looked."))
        task = agent.give("look around", permissions="allow")
        assert task.result(timeout=120).answer == "Looked."
        seen = agent.requests(task.id)[-1].tool_results[-1]
        assert f"this agent may not reach {refused}; it may reach {allowed}" in seen
        assert "Failed to connect to 127.0.0.2" in seen or "Couldn't connect to server" in seen, seen
        assert "HTTPS_PROXY=http://127.0.0.1:" in seen
        until(lambda: f"its program may not reach {refused}: network = {allowed}" in agent.worker.logs(), "it is noted")
