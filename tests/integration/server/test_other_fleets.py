"""Two fleets with a broker each: what one of them accepts for an agent of the other arrives there once."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from appended import whole_lines
from clients import read_settings_anew
from machine import short_folder
from nodes import Broker, Node, NodeWorker
from served import Served
from waiting import until

from torch_tasks import Torch
from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.errors import (
    BrokerUnreachable,
    InternalFault,
    InvalidSettings,
    LedgerOff,
    NotAllowed,
    NotAuthenticated,
    NotThroughDesk,
    RequestNotTaken,
    ServerUnreachable,
    TaskIdTaken,
    TorchError,
    UnknownFleet,
    UnknownRecipient,
)
from torch_tasks.fleet import fleet
from torch_tasks.link.courier import Courier
from torch_tasks.model.message import MessageState

ARRIVED_SECONDS = 60.0


def http(status: int, body: str, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} As said\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"{head}\r\n\r\n{body}".encode()


def problem(status: int, error: str) -> bytes:
    return http(status, json.dumps({"error": error, "detail": f"what a server says of a {error}"}))


OF_ANOTHER = json.dumps({"id": "x", "target": "dev-1", "state": "accepted", "transport": "broker"})
ANSWERS: dict[bytes, type[TorchError]] = {
    http(200, "<html>Log in to this network</html>", "text/html"): ServerUnreachable,
    http(200, "{}"): ServerUnreachable,
    http(200, OF_ANOTHER): ServerUnreachable,
    http(500, "no server of Torch", "text/plain"): InternalFault,
    problem(500, "InternalFault"): InternalFault,
    problem(503, "BrokerUnreachable"): BrokerUnreachable,
    problem(400, "LedgerOff"): LedgerOff,
    problem(400, "RequestNotTaken"): RequestNotTaken,
    problem(409, "AuditNotWritten"): TorchError,
}
"""What does not say that the other fleet has it, nor that it refuses it."""


class Wire:
    """The way to a port of this machine, which a test cuts and mends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._is_cut = False
        self._answer = b""
        self.loses_replies = 0
        """So many replies are lost on their way back, though what was asked for is done."""
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self, *, loses_replies: int = 0, answer: bytes = b"") -> None:
        """Lead to the server again, or have something else ``answer`` in its place."""
        self.loses_replies, self._answer = loses_replies, answer
        self._is_cut = False

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client, ExitStack() as around, suppress(OSError):
            if self._is_cut:
                return
            if self._answer:
                client.recv(65536)
                client.sendall(self._answer)
                client.shutdown(socket.SHUT_WR)
                return
            server = around.enter_context(socket.create_connection(("127.0.0.1", self._port)))
            self._open |= {client, server}
            around.callback(self._open.difference_update, {client, server})
            back = threading.Thread(target=self._back, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(65536):
                server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            back.join(10)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.loses_replies:
                    self.loses_replies -= 1
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def eu() -> Iterator[Served]:
    """The server of the other fleet, which has a broker, keys, and an agent of its own."""
    with ExitStack() as ending:
        patch = ending.enter_context(pytest.MonkeyPatch.context())
        patch.delenv("TORCH_TEST_BROKER_URL", raising=False)
        broker = Broker()
        ending.callback(broker.close)
        keys = {"TORCH_KEYS_DIR": str(broker.settings.state_dir / "keys")}
        server = Served(broker.url, **keys)
        ending.callback(server.close)
        server.start()
        node = Node("node-eu", broker, Torch(server=server.url, token=server.own_token))
        ending.callback(node.close)
        node.agent_worker("dev-1", workdir=node.work, **keys)
        yield server


@pytest.fixture(scope="module")
def wire(eu: Served) -> Iterator[Wire]:
    wire = Wire(eu.port)
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def fleets(eu: Served, wire: Wire) -> Iterator[str]:
    """What the settings of this fleet say of the other one."""
    folder = short_folder()
    token = folder / "eu.token"
    token.touch(0o600)
    token.write_text(eu.token("us", "program"))
    yield json.dumps({"eu": {"server": wire.url, "token_file": str(token)}})
    token.unlink()
    folder.rmdir()


@pytest.fixture
def us(torch: Torch, node: Node, fleets: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> tuple[Torch, Node]:
    """A client on a machine of this fleet, and that machine; no node worker runs there yet."""
    monkeypatch.setenv("TORCH_STATE_DIR", str(node.state))
    monkeypatch.setenv("TORCH_FLEETS", fleets)
    monkeypatch.setenv("TORCH_BROKER_CONNECT_SECONDS", "2")
    read_settings_anew()
    wire.mend()
    return Torch(), node


def start(node: Node, fleets: str) -> NodeWorker:
    return node.node_worker(TORCH_FLEETS=fleets, TORCH_BROKER_CONNECT_SECONDS="1")


def told() -> list[str]:
    """What the operator was told, the latest first."""
    return [one.message.message for one in fleet().inboxes.latest("operator", 10)][::-1]


def counts() -> tuple[int, int]:
    return fleet().crossings.counts("eu")


def test_a_task_and_a_message_reach_an_agent_of_the_other_fleet(
    us: tuple[Torch, Node], fleets: str, tmp_path: Path
) -> None:
    torch, node = us
    worker = start(node, fleets)
    task = torch.enqueue("echo done by $TORCH_AGENT_ID", agent="dev-1@eu")
    sent = torch.send("dev-1@eu", f"echo heard >> {tmp_path}/heard")
    assert (sent.target, sent.state) == ("dev-1@eu", MessageState.SPOOLED)
    assert "brought it to fleet eu" in sent.note
    assert task.result(timeout=60).answer == "done by dev-1\n"
    until(lambda: whole_lines(tmp_path / "heard") == ["heard"], "the message was put into the pane")
    assert not task.spooled
    by = task.record().enqueued_by
    assert by is not None
    assert by.name == "token-us"  # whom the other fleet believes
    assert counts() == (0, 0)
    worker.kill("SIGTERM")


def test_what_was_accepted_while_the_way_is_cut_arrives_once_and_in_its_order(
    us: tuple[Torch, Node], fleets: str, wire: Wire, tmp_path: Path
) -> None:
    torch, node = us
    wire.cut()
    worker = start(node, fleets)
    tasks = [torch.enqueue(f"echo {n} >> {tmp_path}/tasks", agent="dev-1@eu") for n in range(8)]
    for n in range(8):
        torch.send("dev-1@eu", f"echo {n} >> {tmp_path}/messages", id=f"letter-{n}")
    torch.send("dev-1@eu", "echo the same again", id="letter-7")
    assert counts() == (16, 0)
    assert tasks[0].spooled
    until(lambda: "does not answer" in worker.logs(), "the node worker has tried in vain")
    wire.mend(loses_replies=1000)
    until(lambda: wire.loses_replies < 1000, "the other fleet has the first one, and nobody here knows it")
    worker.kill("SIGKILL")
    assert counts() == (16, 0)
    worker = start(node, fleets)
    wire.mend(loses_replies=3)
    assert [task.result(timeout=ARRIVED_SECONDS).succeeded for task in tasks] == [True] * 8
    expected = [str(n) for n in range(8)]
    until(lambda: len(whole_lines(tmp_path / "messages")) >= 8, "the messages were put into the pane", ARRIVED_SECONDS)
    until(lambda: counts() == (0, 0), "nothing waits here any more")
    assert whole_lines(tmp_path / "messages") == expected
    assert whole_lines(tmp_path / "tasks") == expected
    assert wire.loses_replies == 0
    worker.kill("SIGTERM")


def test_what_the_other_fleet_refuses_is_told_to_whoever_asked(us: tuple[Torch, Node], fleets: str) -> None:
    torch, node = us
    torch.send("nobody@eu", "hello", id="to-nobody")
    worker = start(node, fleets)
    until(lambda: counts() == (0, 1), "it was refused", ARRIVED_SECONDS)
    worker.kill("SIGTERM")
    assert told()[0].startswith("fleet eu refuses message.send to-nobody for nobody: no agent 'nobody' is registered")


def test_who_cannot_be_told_of_a_refusal_holds_up_nobody(us: tuple[Torch, Node], tmp_path: Path) -> None:
    torch, _ = us
    with acting_as(Caller(other=CallerKind.PROGRAM, own_name="token-ci", role="operator")):
        torch.send("nobody@eu", "hello", id="of-ci")
    torch.send("dev-1@eu", f"echo behind >> {tmp_path}/heard")
    courier = Courier("eu", fleet())

    def is_refused() -> bool:
        with suppress(UnknownRecipient):  # until its agents have surely reported
            courier.play_round()
        return counts() == (0, 1)

    until(is_refused, "it was refused")
    assert told()[0].startswith("fleet eu refuses message.send of-ci for nobody")
    until(lambda: whole_lines(tmp_path / "heard") == ["behind"], "the message behind it has arrived")


def test_nothing_but_the_other_fleets_own_yes_is_taken_for_one(
    us: tuple[Torch, Node], wire: Wire, tmp_path: Path
) -> None:
    torch, _ = us
    courier = Courier("eu", fleet())
    torch.send("dev-1@eu", f"echo once >> {tmp_path}/heard", id="once", expires=600)
    for answer, error in ANSWERS.items():
        wire.mend(answer=answer)
        with pytest.raises(error):
            courier.play_round()
        assert counts() == (1, 0)
    wire.mend()
    courier.play_round()
    assert counts() == (0, 0)
    assert fleet().crossings.trouble("eu") == ""
    until(lambda: whole_lines(tmp_path / "heard") == ["once"], "the message has arrived")


def test_with_a_token_that_was_revoked_all_waits_until_there_is_another(us: tuple[Torch, Node], eu: Served) -> None:
    torch, _ = us
    file = Path(fleet().settings.fleets["eu"].token_file)
    eu.command("token", "revoke", "us")
    task = torch.enqueue("echo back again", agent="dev-1@eu")
    with pytest.raises(NotAuthenticated):
        Courier("eu", fleet()).play_round()
    assert counts() == (1, 0)
    assert "token" in fleet().crossings.trouble("eu")
    file.write_text(eu.token("us", "program"))
    assert Torch(fleet="eu").agents()
    Courier("eu", fleet()).play_round()
    assert Torch(fleet="eu").task(task.id).result(timeout=60).answer == "back again\n"


def test_another_task_of_an_id_that_waits_is_refused(us: tuple[Torch, Node], wire: Wire) -> None:
    torch, _ = us
    wire.cut()
    torch.enqueue("echo one", agent="dev-1@eu", id="this")
    torch.enqueue("echo one", agent="dev-1@eu", id="this")
    with pytest.raises(TaskIdTaken, match="task this was accepted before with another spec"):
        torch.enqueue("echo two", agent="dev-1@eu", id="this")
    assert counts() == (1, 0)


def test_a_fleet_is_chosen_by_its_name(us: tuple[Torch, Node], eu: Served, fleets: str, tmp_path: Path) -> None:
    assert [agent.agent_id for agent in Torch(fleet="eu").agents()] == ["dev-1"]
    asked = Torch(fleet="eu").enqueue("echo at once", agent="dev-1")
    assert asked.result(timeout=60).answer == "at once\n"

    def command(*words: str, code: int = 0) -> str:
        done = eu.command(*words, code=code, TORCH_FLEETS=fleets, TORCH_STATE_DIR=str(tmp_path), TORCH_BROKER_URL="")
        return done.stdout + done.stderr

    assert "dev-1" in command("--fleet", "eu", "agents")
    unknown = command("--fleet", "ue", "agents", code=2)
    assert "no fleet 'ue' stands in the settings (fleets); those that are: eu" in unknown
    assert "leave one of them out" in command("--fleet", "eu", "--server", eu.url, "agents", code=2)
    assert "leave --server out" in command("--fleet", "eu", "down", code=2)


def test_nobody_crosses_who_may_not(us: tuple[Torch, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    torch, _ = us
    with pytest.raises(UnknownFleet, match="no fleet 'mars'"):
        torch.send("dev-1@mars", "hello")
    with acting_as(Caller(agent="dev-9", role="developer")), pytest.raises(NotAllowed, match=r'cross = "none"'):
        torch.send("dev-1@eu", "hello")
    token = Path(json.loads(str(fleet().settings.fleets["eu"].model_dump_json()))["token_file"])
    token.chmod(0o644)
    with pytest.raises(InvalidSettings, match="others may read the token of fleet eu"):
        Torch(fleet="eu")
    token.chmod(0o600)
    monkeypatch.setenv("TORCH_DESK", "/nowhere")
    with pytest.raises(NotThroughDesk, match="its own fleet alone"):
        Torch(fleet="eu")
    assert counts() == (0, 0)
