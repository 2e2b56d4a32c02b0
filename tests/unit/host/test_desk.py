"""An agent's desk serves its agent, refuses by name what is wrong, and lets nobody keep others waiting."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from machine import short_folder
from waiting import until

from torch_tasks.caller import Caller, caller
from torch_tasks.errors import (
    DeskAway,
    DeskBusy,
    InternalFault,
    InvalidRequest,
    TaskNotFound,
    UnknownOperation,
)
from torch_tasks.fleet import Fleet
from torch_tasks.link import link
from torch_tasks.link.desk import DeskLink
from torch_tasks.link.frames import HEAD, REPLY_BYTES, REQUEST_BYTES, VERSION, frame, size_of
from torch_tasks.model.agent import AgentInfo, AgentSpec
from torch_tasks.model.fields import now
from torch_tasks.operations.operation import Access, Request, operation
from torch_tasks.security.rights import Right
from torch_tasks.settings import Settings
from torch_tasks.state_folder import DESK
from torch_tasks.workers.host import desk as desk_module
from torch_tasks.workers.host.desk import CONNECTIONS, READS, Desk
from torch_tasks.workers.host.presence import AgentPresence


class Say(Request):
    text: str = ""
    id: str = "none"


GATE = threading.Event()


@operation("desktest.who", Right.LOOK, needs_broker=False)
def who(asked: Say) -> tuple[str, int, str]:
    """Say who asks."""
    return caller().name, caller().pid, asked.text


@operation("desktest.write", Right.LOOK, access=Access.WRITE, needs_broker=False)
def write(asked: Say) -> str:
    """Return the id of the request."""
    return asked.id


@operation("desktest.wait", Right.LOOK, needs_broker=False)
def wait(asked: Say) -> str:
    """Wait for the test."""
    GATE.wait(30)
    return "waited"


@operation("desktest.large", Right.LOOK, needs_broker=False, verbatim=True)
def large(asked: Say) -> str:
    """Return more than a socket holds, once the test says so."""
    GATE.wait(30)
    return "x" * (8 << 20)


@operation("desktest.fail", Right.LOOK, needs_broker=False)
def fail(asked: Say) -> str:
    """Fail as the request says."""
    raise TaskNotFound(asked.text) if asked.text else ZeroDivisionError("by zero")


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = short_folder() / "agents" / "qa-1"
    folder.mkdir(parents=True)
    yield folder
    subprocess.run(["rm", "-r", str(folder.parents[1])], check=True)


@pytest.fixture
def desk(folder: Path) -> Iterator[Desk]:
    with serving(folder) as desk:
        yield desk


@contextmanager
def serving(folder: Path) -> Iterator[Desk]:
    GATE.clear()
    desk = Desk(folder, lambda pid: Caller("qa-1", 7, folder, role="qa", pid=pid))
    desk.open()
    try:
        yield desk
    finally:
        GATE.set()
        desk.close()


@pytest.fixture
def qa(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> DeskLink:
    monkeypatch.setenv("TORCH_DESK_SECONDS", "20")
    return DeskLink(desk.path)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has long for a frame."""
    monkeypatch.setattr(desk_module, "FRAME_SECONDS", 0.3)


def sent(desk: Desk, data: bytes) -> dict[str, str]:
    """The error with which the desk answers these bytes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(desk.path))
        client.sendall(data)
        with client.makefile("rb") as stream:
            size = size_of(stream.read(HEAD.size), REPLY_BYTES)
            error: dict[str, str] = json.loads(stream.read(size))["error"]
            return error


@contextmanager
def connected(desk: Desk, count: int) -> Iterator[list[socket.socket]]:
    """So many clients that say nothing."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count)]
        for client in clients:
            client.connect(str(desk.path))
        yield clients


def beside(act: Callable[[], object]) -> Callable[[], object]:
    """Do it in a thread; the returned function waits for what it returned or raised."""
    got: list[object] = []

    def run() -> None:
        try:
            got.append(act())
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> object:
        thread.join(30)
        assert got, "it has not ended"
        return got[0]

    return result


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_its_owner_may_connect(desk: Desk) -> None:
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o600
    assert list(desk.path.parent.glob(".desk*")) == []


def test_whoever_asks_is_the_agent_whatever_its_environment_says(desk: Desk) -> None:
    program = (
        "import os; from pathlib import Path; from torch_tasks.link.desk import DeskLink; "
        f"print(os.getpid(), DeskLink(Path({str(desk.path)!r})).call('desktest.who', {{'text': 'I am boss-1'}}))"
    )
    claims = {"TORCH_AGENT_ID": "boss-1", "TORCH_INCARNATION": "99", "TORCH_TASK_ID": "x", "USER": "boss-1"}
    said = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **claims}, capture_output=True, text=True, check=True
    ).stdout.strip()
    pid = said.split()[0]
    assert said == f"{pid} ['qa-1', {pid}, 'I am boss-1']"


def test_a_process_in_the_pane_finds_the_desk_in_its_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_DESK", str(desk.path))
    assert link().perform(who, Say(text="hello")) == ("qa-1", os.getpid(), "hello")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is able to be another user")
def test_another_user_is_refused_by_name(desk: Desk) -> None:
    for place in (desk.path, *desk.path.parents[:4]):
        place.chmod(0o777)
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        f"s.connect({str(desk.path)!r}); sys.stdout.buffer.write(s.makefile('rb').read())"
    )
    said = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, check=True).stdout
    assert json.loads(said[HEAD.size :])["error"]["name"] == "NotAllowed"
    assert desk.refused == {"NotAllowed": 1}


# ── errors and bad input ─────────────────────────────────────────────────────────────────────────────────────────


def test_errors_arrive_as_themselves_and_are_counted(desk: Desk, qa: DeskLink) -> None:
    with pytest.raises(TaskNotFound, match="no task 7"):
        qa.perform(fail, Say(text="no task 7"))
    with pytest.raises(InternalFault, match="by zero"):
        qa.perform(fail, Say())
    with pytest.raises(UnknownOperation, match=r"desktest\.what"):
        qa.call("desktest.what", {})
    with pytest.raises(InvalidRequest, match="agent: is not a field that exists"):
        qa.call("desktest.who", {"agent": "boss-1"})
    qa.perform(who, Say())
    assert (desk.served, desk.refused) == (
        1,
        {"TaskNotFound": 1, "InternalFault": 1, "UnknownOperation": 1, "InvalidRequest": 1},
    )


def packed(text: bytes, version: int = VERSION) -> bytes:
    return HEAD.pack(version, len(text)) + text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (packed(b"{}", version=2), "no frame of version 1"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no frame of version 1"),
        (HEAD.pack(VERSION, REQUEST_BYTES + 1), "longer than"),
        (packed(b"not json"), "not JSON"),
        (packed(b"[1]"), "no JSON object"),
        (packed(b'"\xff"'), "utf-8"),
        (packed(b'{"operation": "desktest.who", "fields": ' + b'{"a":' * 200 + b"1" + b"}" * 201), "deeper than"),
        (frame({"operation": "desktest.who", "caller": "boss-1"}), "caller: is not a field that exists"),
        (frame({"fields": {}}), "operation: is missing"),
    ],
)
def test_what_is_no_request_is_refused_by_name(desk: Desk, data: bytes, why: str) -> None:
    error = sent(desk, data)
    assert error["name"] == "FrameRefused"
    assert why in error["text"]
    assert desk.refused == {"FrameRefused": 1}


def test_half_a_frame_is_cut_off_by_a_deadline(desk: Desk, hurried: None) -> None:
    assert "no whole request came within 0.3 s" in sent(desk, frame({"operation": "desktest.who"})[:-3])["text"]


def test_a_client_that_hangs_up_within_a_frame_is_counted(desk: Desk) -> None:
    with connected(desk, 1) as (client,):
        client.sendall(b"\x01")
    until(lambda: desk.refused["FrameRefused"], "it is counted")


def test_a_client_that_never_reads_is_cut_off_and_others_are_served(
    desk: Desk, qa: DeskLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(desk, 8) as clients:
        for client in clients:
            client.sendall(frame({"operation": "desktest.large"}))
        until(lambda: desk._running.total() == len(clients), "their requests are read")
        with monkeypatch.context() as hurry:
            hurry.setattr(desk_module, "FRAME_SECONDS", 2.0)
            GATE.set()
            assert qa.perform(who, Say())[0] == "qa-1"
            until(lambda: desk.refused["AnswerNotTaken"] == len(clients), "all are cut off")
    assert len(qa.perform(large, Say())) == 8 << 20


def test_a_thousand_connections_are_refused_by_name_while_others_are_served(desk: Desk, qa: DeskLink) -> None:
    waiting = [beside(lambda: qa.perform(wait, Say())) for _ in range(8)]
    until(lambda: desk.connected == len(waiting), "they wait")
    with connected(desk, 1000):
        until(lambda: desk.refused["DeskBusy"] == 1000 - (CONNECTIONS - len(waiting)), "those beyond are refused")
        late = beside(lambda: qa.perform(who, Say(text="I come when there is room")))
        GATE.set()
        assert [result() for result in waiting] == ["waited"] * len(waiting)
        assert late() == ("qa-1", os.getpid(), "I come when there is room")
    until(lambda: desk.connected == 0, "nobody is left")


def test_what_waits_keeps_nothing_waiting_that_writes(
    desk: Desk, qa: DeskLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [beside(lambda: qa.perform(wait, Say())) for _ in range(READS)]
    until(lambda: desk.connected == READS, "they wait")
    assert qa.perform(write, Say(id="written")) == "written"
    monkeypatch.setenv("TORCH_DESK_SECONDS", "0")
    with pytest.raises(DeskBusy, match=f"carries out {READS} requests"):
        DeskLink(desk.path).perform(who, Say())
    GATE.set()
    assert [result() for result in waiting] == ["waited"] * READS


def test_the_agents_entry_says_how_often_its_desk_refused_something(folder: Path) -> None:
    told: list[AgentInfo] = []
    fleet = SimpleNamespace(
        settings=Settings(state_dir=folder.parents[1]),
        registry=SimpleNamespace(heartbeat=lambda info: told.append(info) or 0),
    )
    presence = AgentPresence(AgentSpec(id="qa-1", role="qa"), cast(Fleet, fleet))
    presence.info = AgentInfo(
        agent_id="qa-1", role="qa", kind="shell", node="n", host="h", pid=1, incarnation=7, workdir="/",
        tmux_socket="/t", started_at=now(),
    )  # fmt: skip
    presence.beat()
    presence._desk.refused["NotAllowed"] += 2
    presence.beat()
    assert [info.desk_refused for info in told] == [{}, {"NotAllowed": 2}]


# ── a worker that is started again ───────────────────────────────────────────────────────────────────────────────


def test_a_request_waits_for_the_next_worker(folder: Path) -> None:
    answer = beside(lambda: DeskLink(folder / DESK).perform(write, Say(), key="once"))
    with serving(folder):
        first = answer()
    with serving(folder):
        assert DeskLink(folder / DESK).perform(write, Say(), key="once") == first, "the key makes the id"
        assert DeskLink(folder / DESK).perform(write, Say(), key="another") != first


def test_what_a_worker_did_not_answer_is_asked_of_the_next_one(folder: Path) -> None:
    with serving(folder) as desk:
        answer = beside(lambda: DeskLink(folder / DESK).perform(wait, Say()))
        until(lambda: desk.connected == 1, "it is asked")
        desk.close()
    with serving(folder) as desk:
        until(lambda: desk.connected == 1, "it is asked again")
        GATE.set()
        assert answer() == "waited"


def test_when_no_worker_comes_back_in_time_the_error_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_DESK_SECONDS", "0.2")
    with pytest.raises(DeskAway, match=r"worker of agent qa-1 .* asked for desktest\.who for 0\.2 s"):
        DeskLink(folder / DESK).perform(who, Say())
    with serving(folder):
        pass
    with pytest.raises(DeskAway, match="refused"):
        DeskLink(folder / DESK).perform(who, Say())
