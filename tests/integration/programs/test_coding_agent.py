"""People at an agent's pane, its questions, its crashes, and workers killed in every phase of a submission."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from fake_kind import FakeKind, words
from fakes.cli.scenario import Events, Faults, Scenario, Start, Turn
from fakes.cli.steps import Ask, Crash, Fail, Permission, Say, Shell, Work
from nodes import AgentWorker, Node
from person import Person
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.client import Task
from torch_tasks.model.task import FailureKind

#: Seconds after which Enter is pressed again.
ENTER_AGAIN = 2.5
#: Seconds after which an agent is held up by what a person leaves in its pane, and a few more.
HELD_UP = 6
LONG = Scenario(default=Turn(steps=(Work(seconds=2), Say())))


class Desk:
    """One agent, its fake program, and its client."""

    def __init__(self, fake: FakeKind, worker: AgentWorker, torch: Torch) -> None:
        self.fake = fake
        self.worker = worker
        self.torch = torch

    def play(self, scenario: Scenario) -> None:
        self.fake.cli.play(scenario)

    def type(self, *keys: str) -> None:
        """A person at the keyboard of the pane."""
        self.worker.tmux("send-keys", *keys)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The program does nothing meanwhile: it draws no key."""
        program = psutil.Process(int(self.worker.tmux("display-message", "-p", "#{pane_pid}")))
        program.suspend()
        yield
        program.resume()

    def received(self, task: Task) -> list[str]:
        """The task's words, each time the model received them."""
        return [words(prompt) for prompt in self.fake.prompts() if f"[torch task {task.id} " in prompt]

    def notes(self, task: Task) -> str:
        return "\n".join(entry.note or "" for entry in task.history())

    def phase(self, task: Task) -> str | None:
        """How far the submission is, by the folder of its latest run."""
        runs = sorted((self.worker.folder / "runs").glob(f"{task.id}.*"))
        try:
            return json.loads((runs[-1] / "submission.json").read_bytes())["steps"][-1]["phase"]
        except (IndexError, FileNotFoundError, ValueError):
            return None


@pytest.fixture(scope="module")
def fake(shared_node: Node) -> FakeKind:
    return FakeKind(
        shared_node, settle=0.3, scenario=Scenario(start=Start(ready_after=0.3, dialogs=("trust", "feedback")))
    )


@pytest.fixture(scope="module")
def agent(fake: FakeKind) -> AgentWorker:
    return fake.worker()


@pytest.fixture
def desk(fake: FakeKind, agent: AgentWorker, torch: Torch) -> Iterator[Desk]:
    """The agent, briefed."""
    desk = Desk(fake, agent, torch)
    desk.play(Scenario())
    if not fake.prompts():
        assert torch.enqueue("get ready").result(timeout=60).succeeded
    yield desk
    desk.play(Scenario())


def test_the_dialogs_of_the_start_are_answered_as_the_toml_says(desk: Desk) -> None:
    assert [record["text"] for record in desk.fake.cli.records("submitted")]
    assert desk.fake.prompts()[0].startswith("You are a developer")


def test_a_person_who_types_is_left_alone_and_the_task_waits_and_says_so(desk: Desk, torch: Torch) -> None:
    desk.type("-l", "my own half-written th")
    task = torch.enqueue("the task")
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    assert "a person is typing" in desk.notes(task)
    assert desk.received(task) == []
    desk.type("-l", "ought")
    desk.type("Enter")
    assert task.result(timeout=30).succeeded
    assert desk.received(task) == ["the task"]
    assert "my own half-written thought" in desk.fake.prompts()


def test_a_person_who_types_into_our_text_keeps_it_from_being_submitted(desk: Desk, torch: Torch) -> None:
    task = torch.enqueue("the task")
    until(lambda: desk.phase(task) == "staged", "the text stands in the composer")
    desk.type("-l", " wait")
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    assert desk.received(task) == []
    desk.type(*["BSpace"] * len(" wait"))
    assert task.result(timeout=30).succeeded
    assert desk.received(task) == ["the task"]


def test_how_long_an_earlier_task_waited_for_a_person_does_not_count_for_the_next(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(default=Turn(steps=(Work(seconds=HELD_UP), Say()))))
    desk.type("-l", "mine")
    first = torch.enqueue("the first")
    until(lambda: first.status is TaskState.WAITING, "the first task waits")
    desk.type("C-u")
    until(lambda: desk.received(first), "the first task is at work")
    desk.type("-l", "mine again")
    second = torch.enqueue("the second")
    until(lambda: "given back: " in desk.notes(second), "the second task is left to other agents")
    desk.type("C-u")
    assert second.result(timeout=30).succeeded
    noted = {(entry.note or "").partition(":")[0]: entry.at for entry in second.history()}
    waited = noted["given back"] - noted["a person is typing in the agent's pane"]
    assert waited.total_seconds() > 1, "it was given back as soon as it waited"


def test_a_key_that_is_not_drawn_yet_keeps_our_text_from_being_submitted(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(faults=Faults(swallow_enters=2)))
    swallowed = len(desk.fake.cli.records("swallowed"))
    with Person(socket=desk.worker.folder / "tmux") as person:
        task = torch.enqueue("the task")
        until(lambda: len(desk.fake.cli.records("swallowed")) > swallowed, "Enter was pressed, and swallowed")
        with desk.frozen():
            person.press("!")
            pressed = time.monotonic()
            until(lambda: time.monotonic() - pressed > ENTER_AGAIN, "Enter would be pressed again")
        until(lambda: task.status is TaskState.WAITING, "the task waits")
        assert "a person is typing" in desk.notes(task)
        assert desk.received(task) == []
        person.press("\x7f")
        assert task.result(timeout=30).succeeded
    assert desk.received(task) == ["the task"]


def test_no_second_enter_follows_one_that_is_not_read_yet(desk: Desk, torch: Torch) -> None:
    """A program without processor time reads both at once later, and the Gemini CLI submits the text with each."""
    desk.play(Scenario(faults=Faults(busy_after_paste=ENTER_AGAIN + 1)))
    task = torch.enqueue("the task")
    assert task.result(timeout=30).succeeded
    assert desk.received(task) == ["the task"]


def test_a_prompt_of_200_kb_is_given_as_a_file(desk: Desk, torch: Torch) -> None:
    text = "\n".join(f"{number} it's `this` $line \\" for number in range(9000))
    task = torch.enqueue(text)
    assert task.result(timeout=60).succeeded
    (prompt,) = desk.received(task)
    named = re.search(r"in the file (\S+) ", prompt)
    assert named
    assert Path(named[1]).read_bytes() == text.encode()


def test_a_dialog_over_the_composer_is_waited_for_unless_it_is_known(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(faults=Faults(dialog_after_paste="feedback")))
    known = torch.enqueue("first")
    assert known.result(timeout=30).succeeded
    desk.play(Scenario(faults=Faults(dialog_after_paste="theme")))
    task = torch.enqueue("second")
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    desk.type("1")
    assert task.result(timeout=30).succeeded
    assert desk.received(known) == ["first"]
    assert desk.received(task) == ["second"]


def test_a_prompt_that_left_no_trace_is_pasted_again_if_the_program_would_report_it(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(faults=Faults(lose_prompts=1)))
    task = torch.enqueue("do not lose me")
    assert task.result(timeout=60).succeeded
    assert desk.received(task) == ["do not lose me"]
    assert "pasted again" in desk.notes(task)


def test_late_and_missing_events_neither_lose_nor_double_a_task(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(events=Events(late={"UserPromptSubmit": 3.0, "Stop": 3.0})))
    late = torch.enqueue("told late")
    assert late.result(timeout=60).succeeded
    desk.play(Scenario(events=Events(off=("UserPromptSubmit",))))
    untold = torch.enqueue("never told")
    assert untold.result(timeout=60).succeeded
    desk.play(Scenario(events=Events(twice=("UserPromptSubmit", "Stop"))))
    twice = torch.enqueue("told twice")
    assert twice.result(timeout=60).succeeded
    assert [desk.received(task) for task in (late, untold, twice)] == [["told late"], ["never told"], ["told twice"]]


def test_permission_is_asked_for_and_answered_by_a_person(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(default=Turn(steps=(Permission(command="touch a.txt"), Say(text="touched")))))
    task = torch.enqueue("touch it")
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    question = task.record().question
    assert question.subject == "Bash(touch a.txt)"
    until(lambda: task.record().question.choices == ("Yes", "No"), "the choices are known")
    task.answer("1")
    result = task.result(timeout=30)
    assert result.answer == "touched"


def test_permission_is_given_or_denied_by_policy(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(default=Turn(steps=(Permission(command="touch b.txt"), Say(text="touched")))))
    allowed = torch.enqueue("touch it", permissions="allow")
    assert allowed.result(timeout=30).answer == "touched"
    assert "allowed Bash(touch b.txt)" in desk.notes(allowed)
    denied = torch.enqueue("touch it", permissions="deny")
    assert denied.result(timeout=60).error.kind is FailureKind.AGENT_FAILED
    assert "denied Bash(touch b.txt)" in desk.notes(denied)


def test_a_question_takes_a_text(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(default=Turn(steps=(Ask(free=True), Say(text="chosen: {choice}")))))
    task = torch.enqueue("ask me", permissions="allow")
    until(lambda: task.status is TaskState.WAITING and task.record().question.choices, "the task waits")
    task.answer("Green, of course")
    assert task.result(timeout=30).answer == "chosen: Green, of course"


def test_an_agent_that_crashes_is_started_again_for_its_next_task(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(turns=(Turn(match="crash", steps=(Work(), Crash())),)))
    crashed = torch.enqueue("crash", max_retries=0)
    assert crashed.result(timeout=60).error.kind is FailureKind.AGENT_CRASHED
    assert len(desk.received(crashed)) == 1
    after = torch.enqueue("and now")
    assert after.result(timeout=60).succeeded


def test_a_shell_that_the_program_left_gets_no_prompt(desk: Desk, torch: Torch, tmp_path: Path) -> None:
    desk.play(Scenario(turns=(Turn(match="leave", steps=(Work(), Shell())),)))
    left = torch.enqueue("leave", max_retries=0)
    assert left.result(timeout=60).error.kind is FailureKind.AGENT_CRASHED
    after = torch.enqueue(f"touch {tmp_path}/ran")
    assert after.result(timeout=60).succeeded
    assert not (tmp_path / "ran").exists()


def test_an_error_of_the_program_is_the_tasks_failure(desk: Desk, torch: Torch) -> None:
    desk.play(Scenario(default=Turn(steps=(Fail(text="API Error: 500 oh no"),))))
    error = torch.enqueue("fail", max_retries=0).result(timeout=30).error
    assert error.kind is FailureKind.AGENT_FAILED
    assert "500 oh no" in error.message


PHASES = {
    "intended": Scenario(faults=Faults(drop_pastes=1)),
    "staged": Scenario(),
    "submitted": Scenario(faults=Faults(swallow_enters=2)),
    "submitted ": Scenario(faults=Faults(accept_after=3)),
    "accepted": LONG,
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_killed_in_any_phase_leaves_the_task_done_once(desk: Desk, torch: Torch, phase: str) -> None:
    desk.play(PHASES[phase])
    task = torch.enqueue(f"survive {phase}")
    until(lambda: desk.phase(task) == phase.strip(), f"it is {phase}")
    desk.worker.kill()
    desk.worker.start()
    desk.worker.ready()
    result = task.result(timeout=60)
    assert result.succeeded
    assert desk.received(task) == [f"survive {phase}"]
