"""A program that does what nobody foresaw: it is named, shown and waited for, and nothing is typed into it blindly."""

from __future__ import annotations

import time

import forked
import psutil
import pytest
from fake_kind import FakeKind, words
from fakes.cli import steps as do
from fakes.cli.client import FakeCli
from fakes.cli.scenario import Faults, Looks, Scenario, Start, Turn, Ways
from machine import TORCH_TASKS
from nodes import AgentWorker, Broker, Node, person_at
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.errors import NotAnswered
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.orchestration.attention import needs

UNSEEN = "the agent's program shows a screen that no rule of its kind knows; its last line: "
#: What is told of each screen, and the key by which a person closes it.
UNKNOWN = {
    "survey": ("Rate us! (1 Bad | 2 Good | 3 No, thanks)", "3"),
    "german": ("Der neuen Lizenz zustimmen? Sie gilt ab dem 1. Mai. (1 Ja, zustimmen | 2 Nein, beenden)", "1"),
    "licence": (f"{UNSEEN}Press any key", "x"),
    "pager": (f"{UNSEEN}:", "q"),
    "editor": (f'{UNSEEN}".git/rebase-todo" 1L, 18B', "q"),
}
LONG = 5.0
"""Longer than Torch waits before it calls a screen unknown, and more than one heartbeat."""


def asks(worker: AgentWorker) -> str:
    """What the fleet knows of an online agent that waits; empty while it does not wait."""
    info = worker.info
    return info.asks if info and info.online and info.state is AgentState.WAITING else ""


def told(agent_id: str = "developer-1") -> list[str]:
    """What a person is told of this agent."""
    return [need.text for need in needs(fleet()) if need.agent == agent_id]


def typed_since(cli: FakeCli, kind: str = "dialog") -> bytes:
    """What the program has read since the last record of this kind."""
    records = cli.records()
    last = max(number for number, record in enumerate(records) if record["kind"] == kind)
    return "".join(record["data"] for record in records[last:] if record["kind"] == "bytes").encode("latin-1")


def cpu_seconds(worker: AgentWorker) -> float:
    """How long the agent's worker has computed."""
    times = psutil.Process(worker.process.pid).cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("dialog", ["german", "licence", "pager"])
def test_what_it_asks_at_its_start_is_shown_and_left_to_a_person(node: Node, torch: Torch, dialog: str) -> None:
    shows, key = UNKNOWN[dialog]
    fake = FakeKind(node, scenario=Scenario(start=Start(dialogs=(dialog,))))
    worker = fake.worker(TORCH_AGENT_START_SECONDS="1")
    until(lambda: shows in asks(worker), "it is held up")
    assert shows in told()[0]
    task = torch.enqueue("when you are there", agent="developer-1")
    time.sleep(LONG)
    assert fake.cli.bytes() == b""
    assert shows in (task.record().waits or "")
    worker.tmux("send-keys", key)
    assert task.result(timeout=30).succeeded
    assert typed_since(fake.cli).startswith(key.encode())
    until(lambda: not told(), "nothing more is told")


@pytest.mark.parametrize(
    ("dialog", "hooks"), [*((dialog, False) for dialog in UNKNOWN), ("german", True), ("pager", True)]
)
def test_what_it_asks_in_a_task_makes_the_task_wait_for_a_person(
    node: Node, torch: Torch, dialog: str, hooks: bool
) -> None:
    shows, key = UNKNOWN[dialog]
    steps = (do.Work(1), do.Open(dialog), do.Work(1), do.Say("All done."))
    fake = FakeKind(node, hooks=hooks, scenario=Scenario(turns=(Turn(steps, match="odd"),)))
    worker = fake.worker()
    task = torch.enqueue("do something odd", agent="developer-1")
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    if question := task.record().question:
        assert question.in_words == shows
        needed = [f"developer-1 asks in task {task.id}: {shows}"]
    else:
        assert task.history()[-1].note == f"waits: {shows}"
        needed = [f"developer-1 (fake on node-a) is held up: {shows}"]
    until(lambda: told() == needed, "a person is told")
    time.sleep(LONG)
    assert typed_since(fake.cli) == b""
    worker.tmux("send-keys", key)
    assert task.result(timeout=30).answer == "All done."
    assert typed_since(fake.cli) == key.encode()
    until(lambda: not told(), "nothing more is told")


@pytest.mark.parametrize("reply", ["2", "Nein, beenden"])
def test_an_unknown_menu_is_answered_by_its_words(node: Node, torch: Torch, reply: str) -> None:
    steps = (do.Work(0.5), do.Open("german"), do.Say("You chose {choice}."))
    fake = FakeKind(node, scenario=Scenario(turns=(Turn(steps, match="odd"),)))
    fake.worker()
    task = torch.enqueue("do something odd", agent="developer-1")
    until(lambda: task.record().question, "it asks")
    with pytest.raises(NotAnswered):
        task.answer("Vielleicht")
    assert typed_since(fake.cli) == b""
    task.answer(reply)
    assert task.result(timeout=30).answer == "You chose Nein, beenden."
    assert fake.cli.keys() == ["Down", "Enter"]


@pytest.mark.parametrize("dialog", UNKNOWN)
def test_what_it_asks_after_a_task_keeps_the_next_ones_for_others(node: Node, torch: Torch, dialog: str) -> None:
    shows, key = UNKNOWN[dialog]
    fake = FakeKind(node, scenario=Scenario(faults=Faults(dialog_after_turn=dialog)))
    worker = fake.worker()
    assert torch.enqueue("the first one", agent="developer-1").result(timeout=30).succeeded
    taken = torch.enqueue("echo mine", role="developer")
    until(lambda: shows in asks(worker), "it waits for a person")
    assert shows in told()[0]
    pinned = torch.enqueue("for developer-1 alone", agent="developer-1")
    node.agent_worker("developer-2")
    assert taken.result(timeout=30).agent == "developer-2"
    assert shows in (pinned.record().waits or "")
    assert typed_since(fake.cli) == b""
    fake.cli.play(Scenario())
    worker.tmux("send-keys", key)
    assert pinned.result(timeout=30).succeeded
    until(lambda: not told(), "nothing more is told")


def test_every_command_says_what_it_shows(node: Node, broker: Broker, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(faults=Faults(dialog_after_turn="german")))
    worker = fake.worker()
    assert torch.enqueue("the first one", agent="developer-1").result(timeout=30).succeeded
    shows, _ = UNKNOWN["german"]
    until(lambda: asks(worker) == shows, "it waits for a person")
    env = {**person_at(worker, broker), "COLUMNS": "400", "TORCH_CONFIG_DIR": str(fake.folder)}

    def said(*words: str) -> str:
        argv = [TORCH_TASKS, *words]
        return forked.run(argv, env).stdout

    reason = f"held up: {shows}"
    assert f"waiting, {reason} ('torch-tasks attach developer-1')" in said("agents")
    assert f"developer-1 (fake on node-a) is {reason}" in said("doctor")
    assert f"developer-1 (fake on node-a) is {reason}" in said("summary")
    assert "Der neuen Lizenz zustimmen?" in said("screen", "developer-1")
    assert f"menu:          {shows}" in said("screen", "--explain", "developer-1")
    assert typed_since(fake.cli) == b""


@pytest.mark.parametrize("dialog", ["german", "pager"])
def test_a_task_that_ends_on_an_unknown_screen_ends_without_a_key(node: Node, torch: Torch, dialog: str) -> None:
    fake = FakeKind(node, scenario=Scenario(turns=(Turn((do.Open(dialog), do.Work(60)), match="odd"),)))
    worker = fake.worker()
    task = torch.enqueue("do something odd", agent="developer-1", timeout=6, max_retries=0)
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    before = worker.pane()
    result = task.result(timeout=30)
    assert result.error is not None
    assert result.error.kind == "timeout"
    assert typed_since(fake.cli) == b""
    assert torch.enqueue("and then", agent="developer-1").result(timeout=30).succeeded
    assert worker.pane() != before


def test_a_spinner_that_never_stops_while_it_idles_holds_no_task(node: Node, torch: Torch) -> None:
    looks = Looks(idle_spinner="Indexing… (esc to interrupt)")
    fake = FakeKind(node, scenario=Scenario(looks=looks))
    worker = fake.worker(TORCH_AGENT_START_SECONDS="1")
    until(lambda: "something of its own" in asks(worker), "it is held up")
    assert "something of its own" in told()[0]
    task = torch.enqueue("echo mine", role="developer")
    node.agent_worker("developer-2")
    assert task.result(timeout=30).agent == "developer-2"
    assert fake.cli.bytes() == b""


def test_titles_that_change_all_the_time_disturb_nothing(node: Node, torch: Torch) -> None:
    looks = Looks(titles_per_second=100, title_idle="{topic}", title_busy=("{topic}",))
    fake = FakeKind(node, scenario=Scenario(looks=looks))
    worker = fake.worker()
    assert torch.enqueue("a task", agent="developer-1").result(timeout=30).succeeded
    before = cpu_seconds(worker)
    time.sleep(LONG)
    assert cpu_seconds(worker) - before < LONG / 2
    assert worker.agent_state is AgentState.READY


@pytest.mark.parametrize("hooks", [True, False])
def test_a_program_that_starts_anew_in_mid_task_has_not_done_it(node: Node, torch: Torch, hooks: bool) -> None:
    turns = (Turn((do.Work(1), do.Update()), match="odd"),)
    fake = FakeKind(node, hooks=hooks, scenario=Scenario(turns=turns))
    fake.worker()
    task = torch.enqueue("do something odd", agent="developer-1", max_retries=0)
    result = task.result(timeout=40)
    assert result.error is not None
    assert "started anew" in result.error.message


def test_a_new_layout_after_an_update_is_an_unknown_screen(node: Node, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(turns=(Turn((do.Work(1), do.Update()), match="odd"),)))
    worker = fake.worker()
    task = torch.enqueue("do something odd", agent="developer-1")
    until(lambda: fake.cli.submitted(), "it has the task")
    fake.cli.play(Scenario(looks=Looks(framed=False)))
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    assert "its last line: ▌ >" in task.history()[-1].note
    assert typed_since(fake.cli, "started") == b""
    until(lambda: "no rule of its kind knows" in asks(worker), "the fleet knows what it shows")


def test_a_licence_notice_that_ends_it_at_its_start_is_told(node: Node) -> None:
    program = node.folder / "licensed"
    program.write_text("#!/bin/sh\necho 'LICENCE: you must accept the terms. Press any key to leave.'\nexit 0\n")
    program.chmod(0o755)
    fake = FakeKind(node, command=[str(program)])
    worker = fake.worker(is_awaited=False)
    worker.process.wait(30)
    assert "its program ended with exit code 0 before it was ready" in worker.logs()
    assert "you must accept the terms" in worker.logs()


def test_a_licence_notice_that_ends_it_in_a_task_is_told(node: Node, torch: Torch) -> None:
    notice = "LICENCE: the terms have changed. Press any key."
    fake = FakeKind(node, scenario=Scenario(turns=(Turn((do.Work(0.5), do.Crash(0, notice)), match="odd"),)))
    fake.worker()
    task = torch.enqueue("do something odd", agent="developer-1", max_retries=0)
    error = task.result(timeout=30).error
    assert error is not None
    assert "exit code 0" in error.message
    assert notice in error.message


def test_a_login_in_mid_task_is_a_persons(node: Node, torch: Torch) -> None:
    steps = (do.Work(0.5), do.Open("sign-in"), do.Say("Logged in, and done."))
    fake = FakeKind(node, scenario=Scenario(turns=(Turn(steps, match="odd"),)))
    worker = fake.worker()
    task = torch.enqueue("do something odd", agent="developer-1")
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    assert "torch-tasks attach developer-1" in task.history()[-1].note
    until(lambda: told() == ["developer-1 (fake on node-a) wants a login"], "a person is told")
    time.sleep(LONG)
    assert typed_since(fake.cli) == b""
    worker.tmux("send-keys", "1")
    assert task.result(timeout=30).answer == "Logged in, and done."


def test_no_time_limit_ends_a_program_with_a_persons_draft(node: Node, torch: Torch) -> None:
    ways = Ways(escape_beside_draft=False)
    fake = FakeKind(node, scenario=Scenario(turns=(Turn((do.Work(600),), match="odd"),), ways=ways))
    worker = fake.worker()
    task = torch.enqueue("do something odd", agent="developer-1", timeout=4)
    until(fake.cli.submitted, "it has the task")
    worker.tmux("send-keys", "-l", "my half-written draft")
    before = worker.pane()
    error = task.result(timeout=30).error
    assert error is not None
    assert error.kind == "timeout"
    until(lambda: "a person is typing" in asks(worker), "it is held up")
    assert worker.pane() == before
    assert "my half-written draft" in worker.screen()
    assert not fake.cli.records("interrupted")
    worker.tmux("send-keys", "C-u")
    until(lambda: fake.cli.records("interrupted"), "it is interrupted when the draft is gone")
    assert torch.enqueue("and then", agent="developer-1").result(timeout=30).succeeded
    assert worker.pane() == before


def test_a_program_that_prints_nothing_at_all_is_called_so(node: Node) -> None:
    fake = FakeKind(node, scenario=Scenario(start=Start(ready_after=600)))
    worker = fake.worker(is_awaited=False, TORCH_AGENT_START_SECONDS="1")
    worker.process.wait(30)
    assert "was not ready within 1 s" in worker.logs()
    assert "its pane showed:\n(nothing)" in worker.logs()
    assert fake.cli.bytes() == b""


@pytest.mark.slow
def test_a_program_that_draws_neither_a_paste_nor_a_key_is_replaced(node: Node, torch: Torch) -> None:
    fake = FakeKind(node)
    worker = fake.worker()
    before = worker.pane()
    fake.cli.play(Scenario(faults=Faults(draw_after=600)))
    task = torch.enqueue("the task", agent="developer-1", max_retries=1)
    until(lambda: fake.cli.bytes().endswith(b"\x1b[201~."), "a key is typed behind the paste")
    fake.cli.play(Scenario())
    assert task.result(timeout=60).succeeded
    notes = [entry.note for entry in task.history()]
    assert any("drew neither the text nor a key typed after it within 30 s" in (note or "") for note in notes)
    assert worker.pane() != before
    assert [words(prompt).split("\n")[-1] for prompt in fake.prompts()] == ["the task"]
