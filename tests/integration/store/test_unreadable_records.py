"""Whatever lies in a hash or a stream is refused by name, and everything beside it is read as ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from clients import read_settings_anew
from hostile import NO_JSON
from nodes import Broker, Node
from waiting import until

from torch_tasks import TaskState, Torch, keys
from torch_tasks.broker.refused import RefusedLetter
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.fleet import fleet
from torch_tasks.store.collaboration import Claims, Notes
from torch_tasks.store.git_reports import GitReports
from torch_tasks.tasks.dead_letters import DeadLetters

WRONG = {**NO_JSON, "a list": "[]", "null": "null", "other fields": '{"a": 1}', "long": json.dumps("x" * 2_000_000)}


@pytest.fixture
def fill(broker: Broker, torch: Torch, empty: None) -> Callable[[str], None]:
    """Fills a hash with fields of every wrong form."""

    def fill(place: str) -> None:
        for name, text in WRONG.items():
            broker.client.hset(place, name, text)

    return fill


READERS: dict[str, Callable[[], Any]] = {
    keys.AGENT_REGISTRY: lambda: fleet().registry.agents(),
    keys.NODE_REGISTRY: lambda: fleet().nodes.nodes(),
    keys.SPAWN_STATES: lambda: fleet().spawns.all(),
    keys.HOLDS: lambda: fleet().holds.latest().root,
    keys.CLAIMS: lambda: Claims().all(),
    keys.GIT_REPORTS: lambda: GitReports().all(),
    keys.FOLLOWUPS: lambda: fleet().client.hgetall(keys.FOLLOWUPS) and [],
}


@pytest.mark.parametrize("place", READERS)
def test_fields_of_a_hash_that_cannot_be_read_are_left_out(fill: Callable[[str], None], place: str) -> None:
    fill(place)
    assert not READERS[place]()


def test_what_is_left_out_is_named_once_and_can_be_dropped(fill: Callable[[str], None], broker: Broker) -> None:
    fill(keys.NODE_REGISTRY)
    assert fleet().nodes.nodes() == fleet().nodes.nodes() == []
    found = fleet().refused.all()
    assert {letter.field for letter in found.values()} == WRONG.keys()
    assert {letter.place for letter in found.values()} == {keys.NODE_REGISTRY}
    name = next(name for name, letter in found.items() if letter.field == "null")
    assert found[name].why == "it is no JSON object, but null"
    assert DeadLetters(fleet()).ids() == sorted(found)
    DeadLetters(fleet()).drop(name)
    assert not broker.client.hexists(keys.NODE_REGISTRY, "null")
    assert name not in fleet().refused.all()


def test_the_oldest_that_were_refused_go_first_counted_and_logged(
    torch: Torch, broker: Broker, empty: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_REFUSED_LIMIT", "6")
    monkeypatch.setenv("TORCH_REFUSED_BYTES", "1M")
    read_settings_anew()
    for number in range(9):
        size = 600_000 if number in (3, 4) else 10
        letter = RefusedLetter(place="torch.any.any", why="it is not JSON", bytes=size, at=number)
        broker.client.hset(keys.DEAD_LETTERS, f"refused-{number}", "x" * size)
        broker.client.hset(keys.REFUSALS, f"refused-{number}", letter.model_dump_json())
    broker.client.hset(keys.DEAD_LETTERS, "a-task", "of its own")
    assert fleet().refused.prune() == 4  # three are too many, and of the two that are long, one is too much
    assert set(broker.client.hkeys(keys.DEAD_LETTERS)) == {*(f"refused-{number}" for number in range(4, 9)), "a-task"}
    assert set(fleet().refused.all()) == {f"refused-{number}" for number in range(4, 9)}
    assert "4 dead letters that could not be read were dropped, the oldest first, 4 in all" in caplog.text
    assert fleet().refused.prune() == 0
    assert fleet().refused.dropped() == 4


def test_no_more_copies_of_fields_are_kept_than_there_is_room_for(
    torch: Torch, broker: Broker, empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_REFUSED_LIMIT", "5")
    read_settings_anew()
    for number in range(20):
        broker.client.hset(keys.NODE_REGISTRY, f"node-{number}", "not json")
    assert fleet().nodes.nodes() == fleet().nodes.nodes() == []
    assert len(fleet().refused.all()) == len(broker.client.hkeys(keys.DEAD_LETTERS)) == 5
    assert fleet().refused.prune() == 0


def test_an_entry_under_another_name_is_no_second_agent(node: Node, torch: Torch, broker: Broker) -> None:
    node.agent_worker("developer-1")
    broker.client.hset(keys.AGENT_REGISTRY, "qa-1", str(broker.client.hget(keys.AGENT_REGISTRY, "developer-1")))
    assert [info.agent_id for info in fleet().registry.agents()] == ["developer-1"]


def test_a_live_agent_whose_entry_was_overwritten_is_back_and_does_its_tasks(
    node: Node, torch: Torch, broker: Broker
) -> None:
    worker = node.agent_worker("developer-1")
    for place in (keys.AGENT_REGISTRY, keys.AGENT_PERFORMANCE, keys.AGENT_LOAD, keys.HOLDS):
        broker.client.hset(place, "developer-1", "[" * 200_000)
    until(lambda: worker.info is not None and worker.info.online, "its entry is written again", 20)
    result = torch.enqueue("echo on", agent="developer-1").result(timeout=20)
    assert (result.status, result.answer) == (TaskState.SUCCEEDED, "on\n")
    assert worker.status == "running"
    assert "Exception in thread" not in worker.logs()


def test_a_task_whose_record_was_overwritten_is_done_all_the_same(node: Node, torch: Torch, broker: Broker) -> None:
    tasks = [torch.enqueue(f"echo {number}", agent="developer-1") for number in range(5)]
    wrong = {"spec": "[" * 200_000, "state": "done", "created_at": "never", "attempts": "many", "queue": ""}
    for task, (field, text) in zip(tasks, wrong.items(), strict=True):
        broker.client.hset(keys.task_record(task.id), field, text)
    assert all(task.id not in {record.spec.id for record in torch.tasks()} for task in tasks[:4])
    node.agent_worker("developer-1")
    assert [task.result(timeout=20).answer for task in tasks] == [f"{number}\n" for number in range(5)]


def test_an_inbox_with_entries_and_records_of_the_wrong_form_delivers_the_others(
    node: Node, torch: Torch, broker: Broker
) -> None:
    worker = node.agent_worker("developer-1")
    inbox = keys.inbox("developer-1", "normal")
    for number, (name, text) in enumerate(WRONG.items()):
        broker.client.xadd(inbox, {"id": f"m{number}"})
        broker.client.hset(keys.message(f"m{number}"), mapping={"message": text, "state": name})
        broker.client.xadd(inbox, {"other": text})
        broker.client.xadd(inbox, {"id": text or "-"})
    sent = NovaOrchestrator().send_message("developer-1", "echo arrived")
    assert NovaOrchestrator().await_delivery(sent.id, timeout=30).state.arrived
    until(lambda: not broker.client.xlen(inbox), "nothing is left in the inbox", 20)
    assert worker.status == "running"
    assert "Exception in thread" not in worker.logs()


def test_notes_and_history_leave_out_what_torch_did_not_write(torch: Torch, broker: Broker, empty: None) -> None:
    notes = Notes("project")
    notes.add("the tests run with make")
    broker.client.xadd(keys.notes("project"), {"other": "x"})
    assert [note.fact for note in notes.all()] == ["the tests run with make"]
    task = torch.enqueue("echo", agent="developer-1")
    broker.client.rpush(keys.task_history(task.id), "not json", '{"at": "noon"}', "[]")
    assert task.history() == []
    broker.client.xadd(keys.AUDIT, {"what": "else"})
    assert NovaOrchestrator().refused() == []


def test_traits_and_an_incarnation_of_the_wrong_form_keep_no_agent_from_its_heartbeat(
    node: Node, torch: Torch, broker: Broker
) -> None:
    worker = node.agent_worker("developer-1")
    broker.client.hset(keys.AGENT_TRAITS, "developer-1", "x")
    broker.client.hset(keys.AGENT_INCARNATION, "developer-1", "many")
    assert torch.enqueue("echo on", agent="developer-1").result(timeout=20).answer == "on\n"
    assert "ResponseError" not in worker.logs()
