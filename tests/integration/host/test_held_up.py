"""An agent that starts slowly, or that is held up by something that only a person can do."""

from __future__ import annotations

import forked
import pytest
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Start
from machine import TORCH_TASKS
from nodes import PACE, AgentWorker, Broker, Node, person_at
from terminals import Terminal
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.errors import NotAnswered
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.orchestration.attention import needs

ASKS = "Update available! (1 Update now | 2 Skip | 3 Skip until next version)"
HELD = f"developer-1 is held up: {ASKS} ('torch-tasks attach developer-1')"
SLOW = 2 * float(PACE["TORCH_OFFLINE_SECONDS"])


def screen(worker: AgentWorker, broker: Broker) -> str:
    """What ``torch-tasks screen`` prints of the agent."""
    argv = [TORCH_TASKS, "screen", worker.agent_id]
    env = person_at(worker, broker)
    return forked.run(argv, env, seconds=30, check=True).stdout


def is_held_up(worker: AgentWorker, asks: str) -> bool:
    info = worker.info
    return info is not None and info.online and info.state is AgentState.WAITING and asks in info.asks


def test_an_agent_is_seen_to_start_for_as_long_as_it_takes(node: Node, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(start=Start(ready_after=SLOW)))
    worker = fake.worker(is_awaited=False)
    until(lambda: worker.agent_state is AgentState.STARTING, "it starts")
    task = torch.enqueue("when you are there", agent="developer-1")
    seen, said = set(), set()

    def is_ready() -> bool:
        info = worker.info
        assert info is not None
        seen.add((info.online, info.state))
        if info.pane and info.state is AgentState.STARTING:
            waits = task.record().waits
            if worker.agent_state is AgentState.STARTING:  # it has not become ready meanwhile
                said.add(waits)
        return info.state is AgentState.READY

    until(is_ready, "it is ready", SLOW + 20)
    assert seen == {(True, AgentState.STARTING), (True, AgentState.READY)}
    assert said == {"developer-1 is starting"}
    assert task.result(timeout=30).succeeded


def test_what_holds_it_up_is_told_and_its_tasks_wait_for_that(node: Node, broker: Broker, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(start=Start(dialogs=("update", "trust"))))
    worker = fake.worker()
    until(lambda: is_held_up(worker, "Update available!"), "the fleet knows what it asks")
    assert "9.9.9 → 10.0.0" in screen(worker, broker)
    pinned = torch.enqueue("for developer-1 alone", agent="developer-1")
    assert (pinned.status, pinned.record().waits) == (TaskState.QUEUED, HELD)
    node.agent_worker("developer-2")
    assert torch.enqueue("echo mine", role="developer").result(timeout=30).agent == "developer-2"
    assert [need.text for need in needs(fleet()) if need.agent == "developer-1"] == [
        f"developer-1 (fake on node-a) is held up: {ASKS}"
    ]
    worker.tmux("send-keys", "2")
    assert pinned.result(timeout=30).succeeded
    assert worker.info is not None
    assert worker.info.asks == ""


def test_a_dialog_is_answered_by_its_words_wherever_they_stand(node: Node, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(start=Start(dialogs=("trust-no-first", "trust", "feedback"))))
    fake.worker()
    assert torch.enqueue("and then").result(timeout=30).succeeded
    assert [record["text"] for record in fake.cli.records("chosen")] == ["Yes, proceed", "Yes, proceed", "Dismiss"]
    assert [record["key"] for record in fake.cli.records("key_in_modal")][:3] == ["Down", "Down", "Enter"]


def test_a_dialog_without_the_choice_waits_for_a_person(node: Node, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(start=Start(dialogs=("trust-by-name",))))
    worker = fake.worker()
    choices = "(1 No, exit | 2 I shall type its name | 3 Yes, as a guest)"
    until(lambda: is_held_up(worker, f"Do you trust the files in this folder? {choices}"), "its choices are told")
    with pytest.raises(NotAnswered, match=r"developer-1 does not take '7'; its program asks: Do you trust .* guest\)"):
        torch.task("developer-1").answer("7")
    assert torch.task("developer-1").answer("Yes, as a guest") == "answered: Yes, as a guest"
    assert torch.enqueue("and then").result(timeout=30).succeeded
    assert [record["text"] for record in fake.cli.records("chosen")] == ["Yes, as a guest"]


def test_a_person_may_attach_while_it_starts_and_answer_there(node: Node, broker: Broker, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(start=Start(ready_after=SLOW, dialogs=("update",))))
    worker = fake.worker(is_awaited=False)
    until(lambda: worker.agent_state is AgentState.STARTING and worker.info and worker.info.pane, "it has a pane")
    visit = Terminal(person_at(worker, broker), "attach", worker.agent_id)
    try:
        visit.see("[developer-1]")
        assert not fake.cli.records("dialog")  # nothing is drawn yet
        visit.see("Update available!", SLOW + 20)
        visit.type("2")
        assert torch.enqueue("and then", agent="developer-1").result(timeout=30).succeeded
        assert visit.process.poll() is None
    finally:
        visit.close()


def test_no_limit_ends_a_program_with_a_persons_draft(node: Node, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(start=Start(dialogs=("update",))))
    worker = fake.worker(TORCH_AGENT_START_SECONDS="2")
    until(lambda: is_held_up(worker, "Update available!"), "it is held up")
    worker.tmux("send-keys", "2", ";", "send-keys", "-l", "my half-written draft")
    until(lambda: is_held_up(worker, "a person is typing"), "the draft is seen")
    pane = worker.pane()
    worker.kill()
    worker.restart()
    until(lambda: is_held_up(worker, "a person is typing"), "its new worker sees it, too")
    assert "my half-written draft" in worker.screen()
    assert worker.pane() == pane
    worker.tmux("send-keys", "C-u")
    assert torch.enqueue("and then", agent="developer-1").result(timeout=30).succeeded


def test_no_limit_ends_a_program_whose_screen_nobody_knows(node: Node, broker: Broker, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(start=Start(dialogs=("theme",))))
    worker = fake.worker(TORCH_AGENT_START_SECONDS="1")
    until(lambda: is_held_up(worker, "Choose the text style that looks best with your terminal:"), "it is held up")
    assert "Choose the text style" in screen(worker, broker)
    worker.tmux("send-keys", "1")
    assert torch.enqueue("and then", agent="developer-1").result(timeout=30).succeeded


def test_a_new_program_for_a_task_that_is_held_up_keeps_the_task_waiting(node: Node, torch: Torch) -> None:
    fake = FakeKind(node)
    worker = fake.worker()
    fake.cli.play(Scenario(start=Start(dialogs=("update",))))
    task = torch.enqueue("with a new program", agent="developer-1", fresh=True)
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    assert task.history()[-1].note == "the agent's program asks: Update available!"
    worker.tmux("send-keys", "2")
    assert task.result(timeout=30).succeeded
