"""From a laptop: the same commands, exit codes and errors through a server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from clients import read_settings_anew
from issued import Authority
from nodes import Broker
from served import Served, served

from torch_tasks import Torch
from torch_tasks.errors import InvalidSettings, NotAuthenticated, ServerUnreachable, TaskNotFinished, TaskNotFound
from torch_tasks.model.task import TaskState

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server(broker: Broker, torch: Torch) -> Iterator[Served]:
    with served(broker) as server:
        yield server


@pytest.fixture
def laptop(server: Served, broker: Broker) -> Command:
    """Runs ``torch-tasks --server`` where neither a broker nor a fleet is known."""
    broker.empty()
    file = server.folder / "laptop.token"
    if not file.exists():
        file.write_text(server.token("laptop", "operator") + "\n")
    away = {"TORCH_BROKER_URL": "", "TORCH_STATE_DIR": str(server.folder / "laptop"), "TORCH_TOKEN_FILE": str(file)}

    def command(*words: str, code: int = 0, **environment: str) -> CompletedProcess[str]:
        return server.command("--server", server.url, *words, code=code, **{**away, **environment})

    return command


def test_a_command_through_the_server_is_the_same_command(laptop: Command, torch: Torch) -> None:
    task_id = laptop("run", "echo hi", "--priority", "high").stdout.strip()
    assert torch.task(task_id).record().spec.priority == "high"
    assert json.loads(laptop("task", task_id, "--json").stdout)["spec"]["prompt"] == "echo hi"
    assert "echo hi" in laptop("tasks").stdout
    assert json.loads(laptop("task", task_id[:8], "--json").stdout)["spec"]["id"] == task_id
    laptop("cancel", task_id)
    assert torch.task(task_id).status is TaskState.CANCELLED


def test_an_error_through_the_server_is_the_same_error(laptop: Command, server: Served) -> None:
    for words, code in ((("task", "gone"), 1), (("run", "x", "--id", "b", "--after", "gone"), 2)):
        assert laptop(*words, code=code).stderr == server.command(*words, code=code).stderr


def test_what_is_about_this_machine_asks_no_server(laptop: Command) -> None:
    assert "leave --server out" in laptop("down", code=2).stderr


def test_without_a_token_it_says_how_to_get_one(laptop: Command) -> None:
    assert "'torch-tasks token create' makes one" in laptop("tasks", code=5, TORCH_TOKEN_FILE="").stderr
    assert "cannot read the token in /nowhere" in laptop("tasks", code=2, TORCH_TOKEN_FILE="/nowhere").stderr


def test_the_folders_owner_needs_no_token_of_its_own(server: Served, laptop: Command) -> None:
    laptop("tasks", TORCH_TOKEN_FILE="", TORCH_STATE_DIR=str(server.state))


def test_a_viewer_looks_and_does_nothing(server: Served, laptop: Command, torch: Torch) -> None:
    viewer = Torch(server=server.url, token=server.token("viewer-1", "viewer"))
    task = torch.enqueue("stays")
    assert viewer.task(task.id).status is TaskState.QUEUED
    (server.folder / "viewer.token").write_text(server.token("viewer-2", "viewer"))
    refused = laptop("cancel", task.id, code=5, TORCH_TOKEN_FILE=str(server.folder / "viewer.token"))
    assert "viewer-2 may not do task.cancel" in refused.stderr
    assert task.status is TaskState.QUEUED


def test_a_program_waits_through_the_server(server: Served, torch: Torch) -> None:
    remote = Torch(server=server.url, token=server.own_token)
    task = remote.enqueue("later")
    with pytest.raises(TaskNotFinished):
        task.result(timeout=0.3)
    torch.task(task.id).cancel()
    assert task.result(timeout=10).status is TaskState.CANCELLED
    with pytest.raises(TaskNotFound, match="gone"):
        remote.task("gone").record()
    with pytest.raises(NotAuthenticated):
        Torch(server=server.url, token="torch_x_y").tasks()


def test_a_request_whose_reply_is_lost_is_done_once(server: Served, torch: Torch, broker: Broker) -> None:
    broker.empty()
    with CutsTheFirstReply(server.port) as proxy:
        task = Torch(server=proxy.url, token=server.own_token).enqueue("once")
        assert proxy.connections > 1
    assert [one.spec.id for one in torch.tasks() if one.spec.prompt == "once"] == [task.id]


def test_a_server_that_is_restarted_is_waited_for(
    broker: Broker, torch: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(broker) as server:
        remote = Torch(server=server.url, token=server.own_token)
        monkeypatch.setenv("TORCH_BROKER_CONNECT_SECONDS", "60")
        read_settings_anew()
        task = remote.enqueue("before")
        server.end()
        again = threading.Thread(target=server.start)
        again.start()
        assert remote.task(task.id).status is TaskState.QUEUED
        again.join()
        server.end()
        monkeypatch.setenv("TORCH_BROKER_CONNECT_SECONDS", "0.1")
        read_settings_anew()
        with pytest.raises(ServerUnreachable, match="TORCH_SERVER"):
            remote.tasks()
    monkeypatch.undo()
    read_settings_anew()


class CutsTheFirstReply:
    """Stands before a server, and cuts the first connection as soon as the server has answered."""

    def __init__(self, port: int) -> None:
        self._port, self.connections = port, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> CutsTheFirstReply:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(client, self.connections == 1), daemon=True).start()

    def _carry(self, client: socket.socket, cut: bool) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            server.settimeout(60)
            back = threading.Thread(target=self._back, args=(server, client, cut), daemon=True)
            back.start()
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join(10)

    @staticmethod
    def _back(server: socket.socket, client: socket.socket, cut: bool) -> None:
        while data := server.recv(65536):
            if cut:
                client.shutdown(socket.SHUT_RDWR)
                return
            client.sendall(data)


def test_a_port_that_somebody_else_has_taken_gets_no_token(server: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        url = f"http://127.0.0.1:{stranger.getsockname()[1]}"
        refused = server.command("--server", url, "tasks", code=5, TORCH_TOKEN_FILE="")
        assert "there is no token for the server" in refused.stderr
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has connected
            stranger.accept()


def test_an_encrypted_server_is_asked_only_where_its_certificate_is_trusted(
    broker: Broker, torch: Torch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, foreign = Authority(tmp_path, "own"), Authority(tmp_path, "foreign")
    server = Served(broker.url, TORCH_SERVER_CERTIFICATE=str(own.issue("server")))
    server.authority = own.file
    try:
        server.start()
        assert server.url.startswith("https://127.0.0.1:")
        asked = ("--server", server.url, "tasks", "--json")
        assert server.command(*asked, SSL_CERT_FILE=str(own.file)).returncode == 0
        refused = server.command(*asked, code=2, SSL_CERT_FILE=str(foreign.file))
        assert f"the certificate of the server at {server.url} is not trusted here" in refused.stderr
        assert "SSL_CERT_FILE" in refused.stderr
        monkeypatch.setenv("SSL_CERT_FILE", str(own.file))
        task = Torch(server=server.url, token=server.own_token).enqueue("over an encrypted connection")
        assert torch.task(task.id).status is TaskState.QUEUED
        monkeypatch.setenv("SSL_CERT_FILE", str(foreign.file))
        with pytest.raises(InvalidSettings, match="is not trusted here"):
            Torch(server=server.url, token=server.own_token).tasks()
    finally:
        server.close()
