"""What an agent says of its task, what it asks, what it is sent back to, and when others take over."""

from __future__ import annotations

import forked
import pytest
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Ask, Limit, Loop, Permission, Run, Say, Work
from machine import TORCH_TASKS
from nodes import Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.client import Task
from torch_tasks.errors import NotAnswered
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import FailureKind, TaskState

#: The agent reads its task's id from the prompt's last line, as a model would.
ID = "id=$(grep -o 'torch task [^ ]*' | tail -n 1 | cut -d ' ' -f 3)"


def says(report: str) -> Turn:
    """A turn in which the agent runs this ``torch-tasks`` command of its task, and goes on a little."""
    return Turn((Run(f"{ID}; torch-tasks {report}"), Say("Bye.")))


@pytest.fixture(scope="module")
def fake(shared_node: Node) -> FakeKind:
    kind = FakeKind(shared_node)
    kind.worker(TORCH_STALLED_SECONDS="0")
    return kind


def notes(task: Task) -> list[str]:
    """What stands in the task's history."""
    return [entry.note for entry in task.history() if entry.note]


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_says_that_it_is_done_and_its_words_are_the_answer(fake: FakeKind, torch: Torch) -> None:
    fake.cli.play(Scenario(says("done $id built the parser, 12 tests pass")))
    result = torch.enqueue("build the parser", agent_kind="fake").result(timeout=30)
    assert (result.succeeded, result.answer) == (True, "built the parser, 12 tests pass")
    assert [item.kind for item in result.evidence] == ["done"]


def test_an_agent_says_that_it_cannot_do_it(fake: FakeKind, torch: Torch) -> None:
    fake.cli.play(Scenario(says("fail $id there is no compiler here")))
    result = torch.enqueue("compile it").result(timeout=30)
    assert result.error is not None
    assert result.error.kind is FailureKind.AGENT_FAILED
    assert "there is no compiler here" in result.error.message


def test_an_agent_says_how_far_it_is(fake: FakeKind, torch: Torch) -> None:
    fake.cli.play(Scenario(Turn((Run(f"{ID}; torch-tasks progress $id half way"), Say("Done.")))))
    task = torch.enqueue("a long one")
    assert task.result(timeout=30).answer == "Done."
    assert any("half way" in note for note in notes(task))
    began = next(entry for entry in task.history() if entry.state is TaskState.RUNNING)
    assert task.record().started_at == began.at


def test_a_report_of_a_task_that_the_agent_does_not_work_on_is_refused(fake: FakeKind, torch: Torch) -> None:
    fake.cli.play(Scenario(Turn((Run("torch-tasks done somebody-elses it is done; echo code $?"), Say("Done.")))))
    assert torch.enqueue("report wrongly").result(timeout=30).answer == "Done."
    screen = (fake.agent_folder / "transcript").read_text(errors="replace")
    assert "does not work on task somebody-elses" in screen
    assert "code 2" in screen


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_person_answers_what_the_agent_asks(fake: FakeKind, torch: Torch) -> None:
    fake.cli.play(Scenario(Turn((Ask("Which colour?", ("Red", "Blue")), Say("Then {choice}.")))))
    task = torch.enqueue("paint it")
    asked = until(lambda: task.record().question, "the question is told")
    assert task.status is TaskState.WAITING
    if not asked.choices:  # its hook told it before its dialog was to be seen
        asked = until(lambda: (now := task.record().question) and now.choices and now, "all of it is told")
    assert (asked.text, asked.choices) == ("Which colour?", ("Red", "Blue"))
    until(lambda: torch.agent("developer-1").state is AgentState.WAITING, "the agent waits")
    assert task.answer("2") == "answered: 2"
    assert task.result(timeout=30).answer == "Then Blue."
    assert task.record().question is None


def test_an_answer_that_the_program_does_not_take_is_refused_and_the_question_stays(
    fake: FakeKind, torch: Torch
) -> None:
    fake.cli.play(Scenario(Turn((Permission(), Say("Done.")))))
    task = torch.enqueue("touch a file", permissions="ask")
    until(lambda: task.record().question, "the question is told")
    with pytest.raises(NotAnswered, match="does not accept '7'"):
        task.answer("7")
    assert task.record().question is not None
    task.answer("1")
    assert task.result(timeout=30).answer == "Done."


def test_a_task_that_asks_nothing_takes_no_answer(fake: FakeKind, torch: Torch) -> None:
    fake.cli.play(Scenario())
    task = torch.enqueue("nothing to ask")
    task.result(timeout=30)
    with pytest.raises(NotAnswered, match="waits for no answer"):
        task.answer("1")


@pytest.mark.parametrize(("permissions", "keys"), [("allow", ["enter"]), ("deny", ["down", "enter"])])
def test_permissions_are_given_as_the_task_says(
    fake: FakeKind, torch: Torch, permissions: str, keys: list[str]
) -> None:
    fake.cli.play(Scenario(Turn((Permission(denied=(Say("Denied."),)), Say("Allowed.")))))
    before = len(fake.cli.keys())
    task = torch.enqueue("touch a file", permissions=permissions)
    result = task.result(timeout=30)
    assert [key.lower() for key in fake.cli.keys()[before:]] == keys
    assert result.answer.endswith("Allowed." if permissions == "allow" else "Denied.")


def test_a_policy_takes_no_choice_that_lasts(fake: FakeKind, torch: Torch) -> None:
    choices = ("Yes, and always allow it", "Yes, and switch to auto mode", "No, never ask again", "Yes", "No")
    fake.cli.play(Scenario(Turn((Permission(choices=choices), Say("Allowed.")))))
    assert torch.enqueue("touch a file", permissions="allow").result(timeout=30).answer.endswith("Allowed.")
    fake.cli.play(Scenario(Turn((Permission(choices=choices, denied=(Say("Denied."),)), Say("Allowed.")))))
    assert torch.enqueue("touch a file", permissions="deny").result(timeout=30).answer.endswith("Denied.")
    assert [chosen["text"] for chosen in fake.cli.records("chosen")][-2:] == ["Yes", "No"]


def test_without_a_choice_for_this_once_a_person_decides(fake: FakeKind, torch: Torch) -> None:
    choices = ("Yes, and always allow it", "No")
    fake.cli.play(Scenario(Turn((Permission(choices=choices), Say("Allowed.")))))
    task = torch.enqueue("touch a file", permissions="allow")
    until(lambda: task.status is TaskState.WAITING, "it waits for a person")
    asked = task.record().question
    assert asked
    assert (asked.choices, asked.lasting) == (choices, (1,))
    assert asked.numbered == ("1 Yes, and always allow it [also for later]", "2 No")
    assert "no choice allows Bash(touch a.txt) for this once alone: a person decides" in [
        e.note for e in task.history()
    ]
    task.answer("1")
    assert task.result(timeout=30).answer.endswith("Allowed.")


def test_it_is_told_which_source_says_what_the_agent_does(
    fake: FakeKind, torch: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(fake.folder))
    monkeypatch.setenv("TORCH_STATE_DIR", str(fake.agent_folder.parents[1]))
    fake.cli.play(Scenario(Turn((Permission(), Say("Done.")))))
    task = torch.enqueue("touch a file", permissions="ask")
    until(lambda: (asked := task.record().question) and asked.choices, "the question is told")
    argv = [TORCH_TASKS, "screen", "developer-1", "--explain"]
    said = forked.run(argv, check=True).stdout
    assert "waiting (dialog)" in said
    assert "hook PermissionRequest" in said
    task.answer("allow")
    assert task.result(timeout=30).answer == "Done."


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_check_goes_back_to_the_agent_which_puts_it_right(
    fake: FakeKind, torch: Torch, shared_node: Node
) -> None:
    wanted = shared_node.folder / "wanted"
    repair = Turn((Run(f"touch {wanted}"), Say("Repaired.")), match="The check of this task failed")
    fake.cli.play(Scenario(turns=(repair,)))
    before = len(fake.prompts())
    task = torch.enqueue("make the file", check=f"echo looked for it; test -e {wanted}")
    result = task.result(timeout=40)
    assert (result.succeeded, result.answer) == (True, "Repaired.")
    first, second = fake.prompts()[before:]
    assert "make the file" in first
    assert "looked for it" in second
    assert any("sent back to the agent (1 of 2)" in note for note in notes(task))


def test_a_check_that_stays_red_fails_the_task_after_its_rounds(fake: FakeKind, torch: Torch) -> None:
    fake.cli.play(Scenario())
    before = len(fake.prompts())
    result = torch.enqueue("hopeless", check="false", check_rounds=1).result(timeout=40)
    assert result.error is not None
    assert result.error.kind is FailureKind.CHECK_FAILED
    assert len(fake.prompts()) - before == 2


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def own(node: Node) -> FakeKind:
    return FakeKind(node, account="tired")


def test_another_agent_takes_what_a_limited_one_cannot_do(own: FakeKind, node: Node, torch: Torch) -> None:
    own.cli.play(Scenario(Turn((Limit(resets="in 2h"),))))
    own.worker("qa-7", "qa")
    task = torch.enqueue("echo taken over", role="qa")
    until(lambda: task.status is TaskState.PARKED, "the task is put back")
    until(lambda: torch.agent("qa-7").state is AgentState.LIMITED, "the agent is limited")
    node.agent_worker("qa-8", "qa")
    result = task.result(timeout=30)
    assert (result.agent, result.answer) == ("qa-8", "taken over\n")
    assert len(own.prompts()) == 1
    assert task.record().tries_before == 1


def test_a_limited_agent_goes_on_by_itself_when_the_limit_is_over(own: FakeKind, torch: Torch) -> None:
    own.cli.play(Scenario(turns=(Turn((Limit(resets="later"),), times=1),)))
    own.worker("qa-7", "qa", TORCH_ACCOUNT_PAUSE_SECONDS="3")
    task = torch.enqueue("try me", role="qa")
    until(lambda: task.status is TaskState.PARKED, "the task is put back")
    assert task.result(timeout=40).answer.startswith("You said:")
    assert len(own.prompts()) == 2
    until(lambda: torch.agent("qa-7").state is AgentState.READY, "the agent is free")


# ── circles ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_that_goes_round_in_circles_is_interrupted(own: FakeKind, torch: Torch) -> None:
    own.cli.play(Scenario(Turn((Work(0.5), Loop()))))
    own.worker("qa-7", "qa", TORCH_STALLED_SECONDS="3")
    result = torch.enqueue("go round", role="qa", max_retries=0).result(timeout=40)
    assert result.error is not None
    assert result.error.kind is FailureKind.LOOPING
    own.cli.play(Scenario())
    assert torch.enqueue("straight on", role="qa").result(timeout=30).succeeded
