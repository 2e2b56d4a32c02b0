"""An agent whose program, terminal, worker or machine was killed comes back with its conversation and its task."""

from __future__ import annotations

import json
from collections.abc import Callable

import psutil
import pytest
from fake_kind import CONVERSATION, FakeKind, words
from fakes.cli.scenario import Faults, Scenario, Turn
from fakes.cli.steps import Say, Work
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.client import Task
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.model.message import MessageKind, MessageState

ENDLESS = Scenario(
    default=Turn(
        (
            Say(
                "Done.",
            ),
        )
    ),
    turns=(
        Turn((Say("It is done now."),), match="Go on with the "),
        Turn((Work(600),), match="long work"),
    ),
)


class Killed:
    """One agent at a task whose turn does not end by itself."""

    def __init__(self, fake: FakeKind, torch: Torch) -> None:
        self.fake = fake
        self.torch = torch
        self.worker = fake.worker()

    def begin(self, prompt: str = "long work") -> Task:
        task = self.torch.enqueue(prompt, agent="developer-1")
        until(lambda: self.phase(task) == "accepted", "the program has accepted the prompt")
        return task

    def phase(self, task: Task, attempt: int = 1) -> str | None:
        file = self.worker.folder / "runs" / f"{task.id}.{attempt}" / "submission.json"
        return json.loads(file.read_bytes())["steps"][-1]["phase"] if file.exists() else None

    def program(self) -> psutil.Process:
        return psutil.Process(self.worker.pane()[1])

    def terminal(self) -> psutil.Process:
        """The tmux server."""
        return psutil.Process(int(self.worker.tmux("display-message", "-p", "#{pid}")))

    def kill_machine(self) -> None:
        """Kill the worker, the terminal and the program at once, as if the power had failed."""
        for process in (self.worker.process, self.terminal(), self.program()):
            process.kill()
        self.worker.process.wait()
        until(lambda: not self.worker.has_pane(), "the terminal is gone")

    def come_back(self) -> AgentWorker:
        self.worker = self.fake.worker()
        return self.worker

    def conversations(self) -> list[list[str]]:
        """How each program was tied to its conversation."""
        return [record["argv"][-2:] for record in self.fake.cli.records("started")]

    def received(self) -> list[str]:
        """The words of each prompt that the model received, the first line of each."""
        return [words(prompt).split("\n\n")[-1].splitlines()[0] for prompt in self.fake.prompts()]


@pytest.fixture
def killed(node: Node, torch: Torch) -> Killed:
    return Killed(FakeKind(node, scenario=ENDLESS, more=CONVERSATION), torch)


def check_went_on(killed: Killed, task: Task) -> None:
    """The task went on in the same conversation, in its one try, and its prompt came once."""
    result = task.result(timeout=60)
    assert (result.answer, result.attempts) == ("It is done now.", 1)
    (_, begun), (how, resumed) = killed.conversations()
    assert (how, resumed) == ("--resume", begun)
    assert len([prompt for prompt in killed.fake.prompts() if "long work" in prompt]) == 1
    assert len([prompt for prompt in killed.fake.prompts() if "Go on with the task" in prompt]) == 1
    assert task.record().attempts == 1
    assert any("asked to go on" in (entry.note or "") for entry in task.history())


@pytest.mark.parametrize("victim", ["program", "terminal", "machine"])
def test_a_task_goes_on_in_its_conversation(killed: Killed, victim: str) -> None:
    task = killed.begin()
    kills: dict[str, Callable[[], object]] = {
        "program": lambda: killed.program().kill(),
        "terminal": lambda: killed.terminal().kill(),
        "machine": killed.kill_machine,
    }
    kills[victim]()
    if victim == "machine":
        killed.come_back()
    check_went_on(killed, task)


def test_an_answer_that_nobody_took_is_the_result(killed: Killed) -> None:
    """The worker is killed first, the program answers, and then all else is killed."""
    killed.fake.cli.play(Scenario(default=Turn((Work(2), Say("Done.")))))
    task = killed.begin("short work")
    killed.worker.kill()
    until(lambda: [event for event in killed.fake.cli.records("hook") if event["event"] == "Stop"], "it has answered")
    killed.kill_machine()
    killed.come_back()
    result = task.result(timeout=60)
    assert (result.answer, result.attempts) == ("Done.", 1)
    assert killed.received() == ["short work"]


def test_it_is_asked_to_go_on_once(killed: Killed) -> None:
    """Killed again while it goes on, the task is tried again, in the same conversation."""
    killed.fake.cli.play(Scenario(default=Turn((Work(600),))))
    task = killed.begin()
    killed.program().kill()
    until(lambda: len(killed.received()) == 2, "it goes on")
    killed.fake.cli.play(Scenario(default=Turn((Say("Done at the second try."),))))
    killed.program().kill()
    result = task.result(timeout=60)
    assert (result.answer, result.attempts) == ("Done at the second try.", 2)
    assert [prompt == "long work" for prompt in killed.received()] == [True, False, True]
    assert len({conversation for _, conversation in killed.conversations()}) == 1


def test_a_prompt_that_did_not_arrive_is_tried_again(killed: Killed) -> None:
    """A program that was killed before it took the prompt has nothing to go on with."""
    killed.fake.cli.play(Scenario(faults=Faults(accept_after=600)))
    task = killed.torch.enqueue("long work", agent="developer-1")
    until(lambda: killed.phase(task) == "submitted", "Enter may be pressed")
    until(lambda: killed.fake.cli.bytes().endswith(b"\r"), "the program has read Enter")
    killed.fake.cli.play(Scenario(default=Turn((Say("Done."),))))
    killed.program().kill()
    result = task.result(timeout=60)
    assert (result.answer, result.attempts) == ("Done.", 2)
    assert killed.received() == ["long work"]


def test_without_its_conversation_the_task_is_tried_again(node: Node, torch: Torch) -> None:
    """A program that cannot go on begins a new conversation, and the task is tried a second time."""
    broken = CONVERSATION.replace('"--resume", "{conversation}"', '"--scenario", "/nowhere/{conversation}"')
    killed = Killed(FakeKind(node, scenario=ENDLESS, more=broken), torch)
    task = killed.begin()
    killed.fake.cli.play(Scenario(default=Turn((Say("Done anew."),))))
    killed.program().kill()
    result = task.result(timeout=60)
    assert (result.answer, result.attempts) == ("Done anew.", 2)
    assert killed.received() == ["long work", "long work"]
    assert "begins a new conversation, as it cannot go on" in killed.worker.logs()


def test_a_kind_without_conversations_tries_again(node: Node, torch: Torch) -> None:
    """Nothing in its file ties a program to a conversation: each begins with an empty head."""
    killed = Killed(FakeKind(node, scenario=ENDLESS), torch)
    task = killed.begin()
    killed.fake.cli.play(Scenario(default=Turn((Say("Done anew."),))))
    killed.program().kill()
    assert task.result(timeout=60).attempts == 2
    assert killed.received() == ["long work", "long work"]


def test_a_fresh_task_begins_a_conversation(killed: Killed) -> None:
    for number in (1, 2):
        assert killed.torch.enqueue(f"work {number}", agent="developer-1", fresh=True).result(timeout=60).succeeded
    assert len({conversation for _, conversation in killed.conversations()}) == 3
    assert {how for how, _ in killed.conversations()} == {"--session-id"}


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Asked:
    """One agent that works on a message which a person sent it."""

    def __init__(self, killed: Killed, kind: MessageKind = MessageKind.QUESTION) -> None:
        self.killed = killed
        self.nova = NovaOrchestrator()
        self.id = self.nova.send_message("developer-1", "long work", kind=kind).id
        until(lambda: self.state() is MessageState.ACKNOWLEDGED, "the program has taken it")

    def state(self) -> MessageState:
        return self.nova.message(self.id).state

    def reply(self) -> str | None:
        """What the person was answered."""
        reply = self.nova.message(self.id).reply
        return self.nova.message(reply).message.message if reply else None


@pytest.mark.parametrize("victim", ["program", "machine"])
def test_a_question_goes_on_in_its_conversation(killed: Killed, victim: str) -> None:
    asked = Asked(killed)
    if victim == "machine":
        killed.kill_machine()
        killed.come_back()
    else:
        killed.program().kill()
    assert until(asked.reply, "it is answered", 60) == "It is done now."
    assert len([prompt for prompt in killed.fake.prompts() if "long work" in prompt]) == 1
    assert len([prompt for prompt in killed.fake.prompts() if "Go on with the message" in prompt]) == 1
    assert killed.torch.enqueue("and then", agent="developer-1").result(timeout=60).answer == "Done."


def test_what_is_no_question_goes_on_too(killed: Killed) -> None:
    Asked(killed, MessageKind.TEXT)
    killed.program().kill()
    until(lambda: any("Go on with the message" in prompt for prompt in killed.fake.prompts()), "it goes on", 60)
    assert killed.torch.enqueue("and then", agent="developer-1").result(timeout=60).answer == "Done."
    assert len([prompt for prompt in killed.fake.prompts() if "Go on with the message" in prompt]) == 1


def test_who_asks_a_program_that_cannot_go_on_hears_that_it_is_not_known(node: Node, torch: Torch) -> None:
    asked = Asked(Killed(FakeKind(node, scenario=ENDLESS), torch))
    asked.killed.program().kill()
    assert "was killed while it worked on this" in until(asked.reply, "it is answered", 60)
    assert len(asked.killed.fake.prompts()) == 1


def test_a_message_is_asked_to_go_on_once(killed: Killed) -> None:
    killed.fake.cli.play(Scenario(default=Turn((Work(600),))))
    asked = Asked(killed)
    killed.program().kill()
    until(lambda: len(killed.received()) == 2, "it goes on", 60)
    killed.program().kill()
    assert "was killed while it worked on this" in until(asked.reply, "it is answered", 60)
