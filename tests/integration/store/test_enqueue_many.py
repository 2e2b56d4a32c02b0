"""Many tasks at once: what becomes of each, whatever the broker and others do meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clients import client_of, run_client
from faults import FaultyBroker, body, broker  # noqa: F401 - a fixture in the place of the session's

from torch_tasks import TaskSpec, TaskState, Torch
from torch_tasks.errors import BrokerUnreachable, InvalidTask, LedgerOff, PartlyAccepted, TaskIdTaken
from torch_tasks.fleet import fleet
from torch_tasks.keys import agent_queue
from torch_tasks.model.task import TaskResult
from torch_tasks.settings import settings
from torch_tasks.store.ledger import Ledger, RowState
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.tasks import batch, recovery
from torch_tasks.tasks.run import run

NOBODY = agent_queue("nobody")
"""What is sent there stays there."""


@pytest.fixture
def torch(broker: FaultyBroker, tmp_path: Path) -> Iterator[Torch]:  # noqa: F811
    """A client with a disk of its own, of an empty broker."""
    with client_of(broker, tmp_path / "state", TORCH_BROKER_CONNECT_SECONDS="0.5") as torch:
        broker.empty()
        yield torch
        if broker.status != "running":
            broker.start()


def ledger() -> Ledger:
    found = fleet().ledger
    assert found is not None
    return found


def nobodys(*names: str) -> list[dict[str, Any]]:
    """Tasks of these ids that stay in their queue."""
    return [{"id": name, "prompt": "true", "agent": "nobody"} for name in names]


def before_round_trip(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], object]) -> None:
    """Have something happen right before the batch's records are sent for the so-manieth time, two at a time."""
    send, count = TaskRecords.accept_all, [0]

    def sending(records: TaskRecords, tasks: Any) -> Any:
        count[0] += 1
        if count[0] == number:
            action()
        return send(records, tasks)

    monkeypatch.setattr(TaskRecords, "accept_all", sending)
    monkeypatch.setattr(batch, "CHUNK", 2)


def states(names: Sequence[str]) -> list[RowState | None]:
    return [ledger().state(name) for name in names]


# ── what is accepted ─────────────────────────────────────────────────────────────────────────────────────────────


def test_handles_come_in_order_for_prompts_fields_and_specs(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    asked = ["true", {"prompt": "true", "agent": "nobody", "id": "two"}, TaskSpec(prompt="echo 3", agent="nobody")]
    tasks = torch.enqueue_many(asked)
    assert [task.record().spec.prompt for task in tasks] == ["true", "true", "echo 3"]
    assert (tasks[1].id, tasks[2].id) == ("two", asked[2].id)
    assert states([task.id for task in tasks]) == [RowState.PUBLISHED] * 3
    assert broker.queued(NOBODY) == ["two", asked[2].id]
    assert torch.enqueue_many([]) == []


def test_the_message_is_the_one_that_celerys_own_way_makes(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    def asked(name: str) -> TaskSpec:
        return TaskSpec(id=name, prompt="echo 日本", title="a title", agent="nobody", priority="urgent")

    run.delay(asked("celerys"))
    torch.enqueue_many([asked("of_many")])
    torch.enqueue("echo 日本", id="alone12", title="a title", agent="nobody", priority="urgent")
    found = {message["headers"]["id"]: message for message in broker.messages(NOBODY)}
    for name, message in found.items():
        names = ("priority", "correlation_id", "reply_to", "delivery_info", "delivery_mode")
        message["properties"] = {one: message["properties"][one] for one in names}
        message["headers"].pop("traceparent")
        message |= {"body": body(message), "torch-signature": ""}
        found[name] = json.loads(json.dumps(message).replace(name, "this"))
    assert found["of_many"] == found["alone12"] == found["celerys"]


def transactions_of() -> list[list[str]]:
    """The statements of each transaction on the ledger from now on, as SQLite itself names them."""
    seen: list[list[str]] = [[]]

    def note(statement: str) -> None:
        seen[-1].append(statement)
        if statement == "COMMIT":
            seen.append([])

    with ledger()._file.reading() as file:
        file.set_trace_callback(note)
    return seen


def that_write(transactions: list[list[str]]) -> int:
    return sum(any("INTO papers" in statement for statement in one) for one in transactions)


def test_a_hundred_tasks_take_one_flush(torch: Torch) -> None:
    torch.enqueue_many(nobodys("first"))
    transactions = transactions_of()
    torch.enqueue_many(nobodys(*map(str, range(100))))
    assert that_write(transactions) == 1


def test_threads_that_enqueue_at_once_share_flushes(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    torch.enqueue("true", agent="nobody")
    transactions = transactions_of()

    def some(thread: int) -> None:
        for number in range(50):
            name = torch.enqueue("true", agent="nobody", id=f"{thread}-{number}").id
            assert ledger().state(name) is RowState.PUBLISHED

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(some, range(8)))
    assert len(set(broker.queued(NOBODY))) == len(broker.queued(NOBODY)) == 401
    assert 0 < that_write(transactions) < 400


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"id": "known", "prompt": "another"}, TaskIdTaken),
        ({"prompt": "true", "after": ["nonesuch"]}, InvalidTask),
        ({"prompt": "x" * (settings().prompt_limit_bytes + 1)}, InvalidTask),
        ({"id": "a", "prompt": "another"}, InvalidTask),
        ({"prompt": "true", "promt": "true"}, InvalidTask),
    ],
    ids=["an id that is taken", "an unknown dependency", "too large", "the same id twice", "no such field"],
)
def test_one_that_is_wrong_is_named_and_nothing_is_enqueued(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    bad: dict[str, Any],
    error: type[Exception],
) -> None:
    torch.enqueue_many(nobodys("known"))
    with pytest.raises(error):
        torch.enqueue_many([*nobodys("a", "b"), bad])
    assert broker.queued(NOBODY) == ["known"]
    assert [record.spec.id for record in torch.tasks()] == ["known"]
    assert [row.task_id for row in ledger().open_after(0, 10)] == ["known"]


def test_an_id_that_another_takes_at_this_moment_is_named_and_the_others_are_accepted(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = "torch.enqueue('another', id='c', agent='nobody')"
    before_round_trip(monkeypatch, 2, lambda: run_client(theirs, TORCH_STATE_DIR=str(tmp_path / "other")))
    with pytest.raises(PartlyAccepted, match="4 of 5 tasks were accepted, and go on; these were not: c: task c was"):
        torch.enqueue_many(nobodys(*"abcde"))
    assert sorted(broker.queued(NOBODY)) == list("abcde")
    assert torch.task("c").record().spec.prompt == "another"
    recovery.restore_all()
    assert sorted(broker.queued(NOBODY)) == list("abcde")
    assert states("abcde") == [RowState.PUBLISHED, RowState.PUBLISHED, None, RowState.PUBLISHED, RowState.PUBLISHED]


# ── a broker that goes away ──────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_sent_waits_on_the_disk_and_is_sent_once(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_round_trip(monkeypatch, 2, broker.stop)
    tasks = torch.enqueue_many(nobodys(*"abcde"))
    assert [task.id for task in tasks] == list("abcde")
    assert states("abcde") == [RowState.PUBLISHED] * 2 + [RowState.SPOOLED] * 3
    with pytest.raises(BrokerUnreachable):
        torch.enqueue_many(nobodys("later"))
    assert ledger().state("later") is None
    torch.enqueue_many(nobodys("spooled"), spool=True)
    broker.start()
    recovery.settle()
    assert broker.queued(NOBODY) == [*"abcde", "spooled"]
    recovery.restore_all()
    assert broker.queued(NOBODY) == [*"abcde", "spooled"]


def test_an_answer_that_is_lost_doubles_nothing(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accept_all = TaskRecords.accept_all

    def cut_off(records: TaskRecords, tasks: Any) -> Any:
        accept_all(records, tasks)
        raise BrokerUnreachable("the connection was lost after all of it was done")

    monkeypatch.setattr(TaskRecords, "accept_all", cut_off)
    torch.enqueue_many(nobodys("a", "b"))
    assert states("ab") == [RowState.SPOOLED] * 2
    recovery.settle()
    assert broker.queued(NOBODY) == ["a", "b"]
    assert states("ab") == [RowState.PUBLISHED] * 2


def test_without_a_ledger_those_that_were_not_accepted_are_named(
    broker: FaultyBroker,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with client_of(broker, tmp_path / "off", TORCH_LEDGER="false", TORCH_BROKER_CONNECT_SECONDS="0.5") as without:
        broker.empty()
        with pytest.raises(LedgerOff):
            without.enqueue_many(nobodys("a"), spool=True)
        before_round_trip(monkeypatch, 2, broker.stop)
        with pytest.raises(PartlyAccepted, match="2 of 5 tasks were accepted, and go on; these were not: c: "):
            without.enqueue_many(nobodys(*"abcde"))
        broker.start()
        assert broker.queued(NOBODY) == ["a", "b"]
        without.enqueue_many(nobodys(*"abcde"))
        assert sorted(set(broker.queued(NOBODY))) == list("abcde")


# ── tasks after others ───────────────────────────────────────────────────────────────────────────────────────────


def test_one_after_a_task_that_has_ended_begins_at_once(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
) -> None:
    torch.enqueue_many(nobodys("done", "open"))
    fleet().records.move("done", TaskState.ASSIGNED)
    fleet().records.finish(TaskResult(task_id="done", status=TaskState.SUCCEEDED))
    late, never, waits = torch.enqueue_many(
        [{"prompt": "true", "agent": "nobody", "after": [one]} for one in ("done", "open")]
        + [{"prompt": "true", "agent": "nobody", "after": ["done", "open"]}]
    )
    assert [task.status for task in (late, never, waits)] == [TaskState.QUEUED, TaskState.PENDING, TaskState.PENDING]
    assert late.id in broker.queued(NOBODY)
