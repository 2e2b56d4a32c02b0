"""Messages while processes die and the broker is away: none is lost, none comes twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import client_of
from fake_kind import FakeKind, words
from fakes.cli.scenario import Faults, Scenario, Turn
from fakes.cli.steps import Say, Work
from nodes import Broker, Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.communication import MessageState, NovaOrchestrator
from torch_tasks.model.agent import AgentStatus

pytestmark = pytest.mark.slow
SECONDS = 40


class Place:
    """A machine with a coding agent, and this process on it."""

    def __init__(self, node: Node, broker: Broker, torch: Torch) -> None:
        self.node, self.broker, self.torch = node, broker, torch
        self.fake = FakeKind(node)
        self.worker = self.fake.worker(TORCH_MESSAGE_TRIES="1")
        self.nova = NovaOrchestrator()
        assert torch.enqueue("get ready", agent="developer-1").result(timeout=60).succeeded
        self._before = len(self.fake.prompts())

    def heard(self) -> list[str]:
        """The words that the agent's model has received."""
        return [words(text) for text in self.fake.prompts()[self._before :]]

    def settled(self, message_id: str) -> bool:
        """The broker knows that the receiver has it."""
        return any(record.message.id == message_id and record.state.settled for record in self.nova.history(limit=1000))

    def past_the_broker(self) -> list[str]:
        """The messages of which the audit says that they came that way."""
        return [entry.message_id for entry in self.nova.refused() if entry.what == "fallback"]

    def submission(self, message_id: str) -> str:
        """How far the message is in the pane."""
        file = self.worker.folder / "messages" / message_id / "submission.json"
        return json.loads(file.read_text())["steps"][-1]["phase"] if file.exists() else ""


@pytest.fixture
def place(own_broker: Broker, tmp_path: Path) -> Iterator[Place]:
    """A broker, a machine, an agent, and this process there."""
    with client_of(own_broker, tmp_path / "client") as torch:
        own_broker.empty()
        node = Node("node-a", own_broker, torch)
        with client_of(own_broker, node.state) as torch:
            yield Place(node, own_broker, torch)
        node.close()


@pytest.mark.parametrize("phase", ["intended", "staged", "submitted", "accepted"])
def test_a_receiver_that_is_killed_gets_the_message_once(place: Place, phase: str) -> None:
    slow = Faults(draw_after=0.5, accept_after=0.5)
    place.fake.cli.play(Scenario(faults=slow))
    sent = place.nova.send_message("developer-1", f"killed when {phase}")
    phases = ["intended", "staged", "submitted", "accepted"]
    until(lambda: place.submission(sent.id) in phases[phases.index(phase) :], f"it is {phase}", SECONDS)
    place.worker.kill()
    place.worker.start()
    place.nova.await_delivery(sent.id, SECONDS)
    assert place.nova.ask("developer-1", "go on", SECONDS)
    assert place.heard() == [f"killed when {phase}", "go on"]
    until(lambda: place.nova.inbox("developer-1") == [], "nothing waits any more")


def test_a_worker_that_is_killed_over_a_question_still_replies(place: Place) -> None:
    place.fake.cli.play(Scenario(turns=(Turn((Work(2.0), Say("Forty-two.")), match="what is it"),)))
    sent = place.nova.send_message("developer-1", "what is it", kind="question")
    place.nova.await_delivery(sent.id, SECONDS)
    place.worker.kill()
    place.worker.start()
    reply = until(lambda: place.nova.message(sent.id).reply, "it is answered", SECONDS)
    assert place.nova.message(reply).message.message == "Forty-two."
    assert place.heard() == ["what is it"]


def test_an_agent_that_is_away_gets_its_messages_when_it_returns(place: Place) -> None:
    place.worker.kill("SIGTERM")
    until(lambda: place.torch.agent("developer-1").status is AgentStatus.OFFLINE, "it is away", SECONDS)
    sent = [place.nova.send_message("developer-1", f"number {number}") for number in range(3)]
    assert "developer-1 is offline" in sent[0].note
    place.worker.start()
    place.nova.await_delivery(sent[-1].id, SECONDS)
    assert place.heard() == ["number 0", "number 1", "number 2"]


def test_without_the_broker_an_agent_here_gets_it_and_one_elsewhere_later(place: Place) -> None:
    other = Node("node-b", place.broker, place.torch)
    try:
        shell = other.agent_worker("qa-1", "qa")
        place.broker.stop()
        near = place.nova.send_message("developer-1", "the broker is away")
        assert (near.transport, near.state) == ("fallback", MessageState.ACCEPTED)
        until(lambda: place.heard() == ["the broker is away"], "it has it all the same", SECONDS)
        said = other.work / "said"
        far = [place.nova.send_message("qa-1", f"echo {number} >> {said}") for number in range(4)]
        assert {(sent.transport, sent.state) for sent in far} == {("spool", MessageState.SPOOLED)}
        again = place.nova.send_message("developer-1", "still away", id="again")
        assert again.transport == "fallback"
        until(lambda: len(place.heard()) == 2, "that came, too", SECONDS)
        assert place.nova.send_message("developer-1", "still away", id="again").transport == "fallback"

        place.broker.start()
        until(lambda: said.exists() and said.read_text() == "0\n1\n2\n3\n", "they were sent in their order", SECONDS)
        until(lambda: place.settled(near.id) and place.settled(far[-1].id), "the broker knows it", SECONDS)
        assert place.nova.message(near.id).transport == "fallback"
        until(lambda: near.id in place.past_the_broker(), "it is audited that it came past the broker")
        assert place.nova.ask("developer-1", "are you there?", SECONDS)
        assert place.heard() == ["the broker is away", "still away", "are you there?"]
        assert said.read_text() == "0\n1\n2\n3\n"
        assert shell.status == "running"
    finally:
        other.close()


def test_what_the_broker_forgot_is_sent_again(place: Place) -> None:
    done = place.nova.send_message("developer-1", "before")
    place.nova.await_delivery(done.id, SECONDS)
    place.worker.kill("SIGTERM")
    sent = [place.nova.send_message("developer-1", f"number {number}") for number in range(3)]
    place.broker.empty()
    assert place.broker.client.keys("nova:torch:message:*") == []
    place.worker.start()
    until(lambda: len(place.heard()) == 4, "all came", SECONDS)
    until(lambda: place.settled(sent[-1].id), "they are settled", SECONDS)
    assert place.nova.ask("developer-1", "go on", SECONDS)
    assert place.heard() == ["before", "number 0", "number 1", "number 2", "go on"]


def test_a_program_that_takes_nothing_makes_the_message_dead_and_it_can_be_replayed(place: Place) -> None:
    place.fake.cli.play(Scenario(faults=Faults(drop_pastes=100)))
    sent = place.nova.send_message("developer-1", "does not come through")
    until(lambda: place.nova.message(sent.id).state is MessageState.DEAD, "it is given up", 120)
    assert "it took none of 4 pastes" in place.nova.message(sent.id).note
    place.fake.cli.play(Scenario())
    place.nova.replay(sent.id)
    place.nova.await_delivery(sent.id, SECONDS)
    assert place.heard() == ["does not come through"]
