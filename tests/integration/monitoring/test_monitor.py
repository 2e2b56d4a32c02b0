"""The monitor: what a program beside the fleet prints while things are said, done and lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from clients import client_of
from machine import TORCH_TASKS
from nodes import Broker, Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.communication import Message, MessageState, NovaOrchestrator
from torch_tasks.errors import InboxFull, UnknownRecipient
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now

pytestmark = pytest.mark.slow


def enter(agent_id: str, role: str) -> AgentInfo:
    """An agent is there."""
    known: dict[str, Any] = {"agent_id": agent_id, "role": role, "kind": "shell", "node": "n", "pid": 1, "host": "h"}
    known |= {"incarnation": 0, "workdir": "/w", "tmux_socket": "/t", "started_at": now(), "state": AgentState.READY}
    return fleet().registry.register(AgentInfo.model_validate(known), holder_is_gone=True)


class Monitor:
    """The program, and the lines that it has printed."""

    def __init__(self, *words: str, argv: tuple[str, ...] = (TORCH_TASKS, "monitor")) -> None:
        # Whoever runs the tests in the background has them ignore Ctrl-C, and all that they start.
        self.process = subprocess.Popen(
            ["env", "--default-signal=INT", *argv, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert self.process.stdout
        assert self.process.stderr
        self.greeting = self.process.stderr.readline()
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self.lines.extend, args=(self.process.stdout,), daemon=True)

    def read(self) -> Monitor:
        """Begin to read; before that, the pipe may be broken."""
        self._reading.start()
        return self

    def events(self) -> list[dict[str, Any]]:
        """The events, if they are told as JSON."""
        return [json.loads(line) for line in list(self.lines)]

    def end(self, number: int = signal.SIGINT) -> int:
        """End it; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def watch(torch: Torch) -> Iterator[Callable[..., Monitor]]:
    """Start a monitor, which listens by then."""
    monitors: list[Monitor] = []

    def start(*words: str, **how: Any) -> Monitor:
        monitors.append(Monitor(*words, **how))
        assert "Ctrl-C ends it" in monitors[-1].greeting
        return monitors[-1]

    yield start
    for monitor in monitors:
        monitor.process.kill()
        monitor.process.wait()


def test_what_is_said_done_and_lost_is_seen(watch: Callable[..., Monitor], torch: Torch, shared_node: Node) -> None:
    seeds = (sys.executable, "-m", "torch_tasks.communication.debug_monitor")
    all_of_it, for_people = watch("--json", argv=seeds).read(), watch("--only", "messages").read()
    only_qa = watch("--json", "--role", "qa").read()
    shared_node.agent_worker("qa-1", "qa")
    task = torch.enqueue("echo done", agent="qa-1")
    assert task.result(timeout=60).succeeded
    nova = NovaOrchestrator()
    sent = nova.send_message("qa-1", "echo hi\n: '\x1b[31m'")
    nova.await_delivery(sent.id, 30)
    with pytest.raises(UnknownRecipient):
        nova.send_message("qa-7", "are you there?")
    enter("developer-9", "developer")
    given_up = nova.send_message("developer-9", "nobody takes it")
    fleet().inboxes.settle(fleet().inboxes.get(given_up.id).message, MessageState.DEAD, note="nobody took it")

    def told() -> list[tuple[str, str, bool]]:
        return [(event["kind"], event["what"], event["lost"]) for event in all_of_it.events()]

    until(lambda: ("messages", "dead", True) in told(), "the last of it is told")
    wanted = [
        ("agents", "came", False),
        ("tasks", "running", False),
        ("tasks", "succeeded", False),
        ("messages", "accepted", False),
        ("messages", "staged", False),
        ("messages", "acknowledged", False),
        ("messages", "unknown", True),
    ]
    assert [one for one in wanted if one not in told()] == []
    dead = next(event for event in all_of_it.events() if event["what"] == "dead")
    assert (dead["sender"], dead["agent"], dead["note"]) == ("operator", "developer-9", "nobody took it")
    until(lambda: any("developer-9" in line and "dead" in line for line in for_people.lines), "people see it, too")
    said = next(line for line in for_people.lines if sent.id in line)
    assert "operator → qa-1  echo hi␊: '␛[31m'" in said
    assert not any("\x1b" in line or " tasks " in line or " agents " in line for line in for_people.lines)
    assert {event["role"] for event in only_qa.events() if event["kind"] != "broker"} <= {"qa"}
    assert {"messages", "tasks", "agents"} <= {event["kind"] for event in only_qa.events()}
    assert [monitor.end() for monitor in (all_of_it, for_people, only_qa)] == [130] * 3


def test_a_full_inbox_is_seen_and_audited(watch: Callable[..., Monitor], monkeypatch: pytest.MonkeyPatch) -> None:
    enter("developer-8", "developer")
    monitor = watch("--json", "--agent", "developer-8", "--only", "messages").read()
    monkeypatch.setattr(fleet().inboxes, "_limits", fleet().settings.model_copy(update={"inbox_limit": 1}))
    NovaOrchestrator().send_message("developer-8", "one")
    with pytest.raises(InboxFull):
        NovaOrchestrator().send_message("developer-8", "two")
    until(lambda: [event["what"] for event in monitor.events()] == ["accepted", "full"], "both are told")
    argv = [TORCH_TASKS, "messages", "--refused", "--json"]
    refused = json.loads(forked.run(argv, check=True).stdout)[-1]
    assert (refused["sender"], refused["target"], refused["what"]) == ("operator", "developer-8", "full")
    assert "holds 1 messages already" in refused["why"]
    shown = subprocess.run(argv[:-1], capture_output=True, check=True, timeout=60, text=True).stdout
    assert "developer-8" in shown
    assert monitor.end(signal.SIGTERM) == 0


def test_it_ends_by_itself_and_when_nobody_reads(watch: Callable[..., Monitor]) -> None:
    assert watch("--for", "0.5").process.wait(30) == 0
    quiet = watch()
    assert quiet.process.stdout
    quiet.process.stdout.close()
    assert quiet.process.wait(30) == 0
    assert quiet.process.stderr
    assert quiet.process.stderr.read() == ""


def test_the_seeds_command_sends(torch: Torch) -> None:
    enter("developer-7", "developer")
    argv = [sys.executable, "-m", "torch_tasks.communication.send_message", "developer-7", "hello there"]
    said = forked.run(argv, check=True).stdout
    assert said.startswith("message ")
    assert said.endswith(" to developer-7: accepted\n")
    assert [record.message.message for record in NovaOrchestrator().inbox("developer-7")] == ["hello there"]
    argv[-2] = "developer-77"
    refused = forked.run(argv)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "did you mean developer-7" in refused.stderr


def test_without_a_broker_it_says_so() -> None:
    nowhere = {"TORCH_BROKER_URL": "redis://127.0.0.1:1/0", "TORCH_BROKER_CONNECT_SECONDS": "0.2"}
    argv = [TORCH_TASKS, "monitor"]
    said = forked.run(argv, {**os.environ, **nowhere})
    assert (said.returncode, said.stdout) == (4, "")
    assert "no broker answers at redis://127.0.0.1:1/0" in said.stderr


def test_it_survives_the_brokers_restart(own_broker: Broker, tmp_path: Path) -> None:
    with client_of(own_broker, tmp_path / "client"), contextlib.ExitStack() as stack:
        own_broker.empty()
        enter("qa-1", "qa")
        monitor = Monitor("--json").read()
        stack.callback(monitor.process.wait)
        stack.callback(monitor.process.kill)

        def told(kind: str) -> list[str]:
            return [event["what"] for event in monitor.events() if event["kind"] == kind]

        fleet().inboxes.send(Message(sender="operator", target="qa-1", message="before"), "qa")
        until(lambda: told("messages") == ["accepted"], "the first is told")
        own_broker.stop()
        until(lambda: told("broker") == ["away"], "the broker's absence is told")
        own_broker.start()
        until(lambda: told("broker") == ["away", "back"], "its return is told")
        fleet().inboxes.send(Message(sender="operator", target="qa-1", message="after"), "qa")
        until(lambda: told("messages") == ["accepted", "accepted"], "it goes on")
        assert monitor.end() == 130
