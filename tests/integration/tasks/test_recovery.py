"""A broker that forgot: emptied, restarted without its data, or with those of some time ago."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import client_of, run_client, start_client
from faults import FaultyBroker, broker  # noqa: F401 - a fixture in the place of the session's
from nodes import Node
from waiting import until

from torch_tasks import TaskState, Torch, keys
from torch_tasks.errors import TaskNotFound
from torch_tasks.fleet import fleet
from torch_tasks.keys import agent_queue
from torch_tasks.model.task import TaskResult
from torch_tasks.store.ledger import Ledger, RowState
from torch_tasks.tasks import recovery
from torch_tasks.transport import Gate

NOBODY = agent_queue("nobody")
"""The queue of an agent that never comes: what is sent there stays there."""


@pytest.fixture
def torch(broker: FaultyBroker, tmp_path: Path) -> Iterator[Torch]:  # noqa: F811
    """A client with a disk of its own, of an empty broker."""
    with client_of(broker, tmp_path / "state") as torch:
        broker.empty()
        yield torch


def ledger() -> Ledger:
    """This machine's."""
    found = fleet().ledger
    assert found is not None
    return found


def enqueue(torch: Torch, *names: str) -> None:
    """Tasks that stay in their queue."""
    for name in names:
        torch.enqueue("true", agent="nobody", id=name)


def end(task_id: str, state: TaskState = TaskState.FAILED) -> None:
    """Have a task end that nobody began."""
    fleet().records.finish(TaskResult(task_id=task_id, status=state))


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def emptied(broker: FaultyBroker) -> None:  # noqa: F811
    """By hand, while it runs."""
    broker.client.flushall()


def lost(broker: FaultyBroker) -> None:  # noqa: F811
    """Killed, and restarted without its data."""
    broker.lose_everything()


@pytest.fixture(params=[emptied, lost])
def forget(request: pytest.FixtureRequest) -> Any:
    """A way in which a broker loses all data."""
    return request.param


# ── an empty broker ──────────────────────────────────────────────────────────────────────────────────────────────


def test_whoever_talks_to_an_empty_broker_next_puts_back_what_it_forgot(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    forget: Any,
) -> None:
    ended, waiting = names("ended", 3), names("waiting", 20)
    enqueue(torch, *ended, *waiting)
    for name in ended:
        end(name)
        assert torch.task(name).result(timeout=30).status is TaskState.FAILED
    torch.task(waiting.pop(7)).cancel()
    forget(broker)
    run_client("torch.agents()")
    assert broker.queued(NOBODY) == waiting
    states = {record.spec.id: record.state for record in torch.tasks()}
    assert states == {
        **dict.fromkeys(ended, TaskState.FAILED),
        **dict.fromkeys(waiting, TaskState.QUEUED),
        "waiting-7": TaskState.CANCELLED,
    }
    assert torch.task("ended-0").result(timeout=30) == TaskResult(task_id="ended-0", status=TaskState.FAILED)


def test_it_is_put_back_once(broker: FaultyBroker, torch: Torch, forget: Any) -> None:  # noqa: F811
    enqueue(torch, *names("once", 5))
    forget(broker)
    for _ in range(3):
        recovery.settle_and_close()
        recovery.restore_all()
        torch.tasks()
    assert broker.queued(NOBODY) == names("once", 5)


def test_who_waits_for_a_result_goes_on_waiting_when_its_task_was_forgotten(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
) -> None:
    enqueue(torch, "waited-for", "asked-for")
    client = start_client("print(torch.task('waited-for').result(timeout=60).status)")
    until(lambda: "task_status:waited-for" in str(broker.client.pubsub_channels()), "it waits")
    broker.client.flushall()
    assert torch.task("asked-for").status is TaskState.QUEUED, "at once, however short ago the last look was"
    until(lambda: fleet().records.find("waited-for"), "it is put back")
    end("waited-for")
    assert client.communicate(timeout=60) == ("failed\n", "")


def test_queues_are_demanded_again(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    torch.enqueue("true", role="writer", skills=["prose"])
    broker.client.flushall()
    recovery.restore_all()
    assert broker.client.smembers(keys.DEMANDED_QUEUES) == {"torch.writer.prose"}


@pytest.mark.slow
def test_agents_run_what_was_put_back_and_nothing_twice(
    broker: FaultyBroker,  # noqa: F811
    node: Node,
    torch: Torch,
    tmp_path: Path,
    forget: Any,
) -> None:
    node.agent_worker("developer-1")
    effects, go = tmp_path / "effects", tmp_path / "go"
    tasks = [torch.enqueue(_effect(f"{number}", effects, go), role="developer") for number in range(60)]
    until(lambda: tasks[_HELD_UP].status is TaskState.RUNNING, "some of them ran")
    forget(broker)
    recovery.restore_all()
    go.touch()
    for task in tasks:
        assert task.result(timeout=60).succeeded
    assert Counter(effects.read_text().split()) == Counter(map(str, range(60)))


@pytest.mark.slow
def test_an_agent_worker_puts_back_what_was_enqueued_on_its_machine(
    broker: FaultyBroker,  # noqa: F811
    node: Node,
    forget: Any,
) -> None:
    node.agent_worker("developer-1")  # no node worker runs there, and no command talks to the new broker
    enqueue_there = "[torch.enqueue('true', agent='nobody', id=f'there-{number}') for number in range(3)]"
    run_client(enqueue_there, TORCH_STATE_DIR=str(node.state))
    forget(broker)
    until(lambda: broker.queued(NOBODY) == names("there", 3), "they are put back", 30)


_HELD_UP = 5


def _effect(line: str, effects: Path, go: Path) -> str:
    """A prompt that appends a line to a file; one of them waits before that until it may go on."""
    held_up = f"until [ -e {go} ]; do sleep 0.05; done; " if line in (f"{_HELD_UP}", f"early-{_HELD_UP}") else ""
    return f"{held_up}echo {line} >> {effects}"


# ── a broker in the past ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_broker_that_is_back_in_the_past_learns_what_happened_since(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
) -> None:
    enqueue(torch, "before", "ended-since", "cancelled-since", "ended-before")
    end("ended-before")
    recovery.settle_and_close()
    past = broker.snapshot()
    end("ended-since")
    torch.task("cancelled-since").cancel()
    enqueue(torch, "since-0", "since-1")
    recovery.settle_and_close()
    broker.go_back_to(past)
    # The keeper of a worker would see to this: the broker's gate opens for its new process.
    gate = Gate(broker.client)
    until(lambda: gate.enter(gate.state().identity, 100, 1).open, "the gate opens")
    assert broker.queued(NOBODY) == ["before", "ended-since", "cancelled-since", "ended-before"]
    run_client("torch.tasks()")
    assert {record.spec.id: record.state for record in torch.tasks()} == {
        "before": TaskState.QUEUED,
        "ended-since": TaskState.FAILED,
        "cancelled-since": TaskState.CANCELLED,
        "ended-before": TaskState.FAILED,
        "since-0": TaskState.QUEUED,
        "since-1": TaskState.QUEUED,
    }
    assert broker.queued(NOBODY)[4:] == ["since-0", "since-1"]


@pytest.mark.slow
def test_agents_do_not_run_again_what_ended_since_nor_lose_what_was_enqueued_since(
    broker: FaultyBroker,  # noqa: F811
    node: Node,
    torch: Torch,
    tmp_path: Path,
) -> None:
    effects, go = tmp_path / "effects", tmp_path / "go"
    early = [torch.enqueue(_effect(f"early-{number}", effects, go), role="developer") for number in range(10)]
    unwanted = torch.enqueue(f"echo unwanted >> {effects}", role="developer")
    past = broker.snapshot()
    unwanted.cancel()
    node.agent_worker("developer-1")
    until(lambda: early[_HELD_UP].status is TaskState.RUNNING, "some of them ran")
    late = [torch.enqueue(f"echo late-{n} >> {effects}", role="developer") for n in range(5)]
    broker.go_back_to(past)
    recovery.restore_all()
    go.touch()
    for task in early + late:
        assert task.result(timeout=60).succeeded
    assert unwanted.status is TaskState.CANCELLED
    expected = names("early", 10) + names("late", 5)
    assert Counter(effects.read_text().split()) == Counter(expected)


def test_a_record_whose_message_was_not_in_the_snapshot_gets_it_back(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
) -> None:
    enqueue(torch, "with", "without", "parked")
    _, *gone = fleet().deliveries.waiting(NOBODY)
    for message in gone:
        broker.client.lrem(f"{NOBODY}\x06\x166", 1, message)
    broker.client.hset(keys.DELIVERIES, "parked:x:torch.agent.nobody", gone[1])
    recovery.restore_all()
    assert broker.queued(NOBODY) == ["with", "without"]


# ── several who put back ─────────────────────────────────────────────────────────────────────────────────────────


def test_two_who_put_back_at_once_publish_each_task_once(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    enqueue(torch, *names("shared", 200))
    broker.client.flushall()
    statements = "print('ready', flush=True); sys.stdin.readline(); recovery.restore_all()"
    clients = [start_client(statements) for _ in range(3)]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    complaints = [client.communicate(timeout=60)[1] for client in clients]
    assert [client.returncode for client in clients] == [0] * 3, complaints
    assert Counter(broker.queued(NOBODY)) == Counter(names("shared", 200))


def test_who_is_killed_while_putting_back_is_finished_by_the_next(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    enqueue(torch, *names("broken", 300))
    broker.client.flushall()
    client = start_client("recovery.restore_all()")
    until(lambda: broker.client.exists(NOBODY + "\x06\x166"), "it has begun")
    client.send_signal(signal.SIGKILL)
    client.communicate()

    def all_are_published() -> bool:
        torch.tasks()
        return all(row.state is RowState.PUBLISHED for row in ledger().open_after(0, 1000))

    until(all_are_published, "the next one sees that it is dead")
    assert Counter(broker.queued(NOBODY)) == Counter(names("broken", 300))


def test_tasks_accepted_here_are_not_given_to_another_broker(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    tmp_path: Path,
) -> None:
    enqueue(torch, "mine")
    other = FaultyBroker()
    try:
        with client_of(other, tmp_path / "state") as elsewhere:
            recovery.restore_all()
            assert elsewhere.tasks() == []
            assert ledger().summary().elsewhere == 1
    finally:
        other.close()


# ── rows and records ─────────────────────────────────────────────────────────────────────────────────────────────


def test_tending_closes_what_has_ended_wherever_that_was_seen(torch: Torch) -> None:
    enqueue(torch, *names("tended", 450))
    for name in names("tended", 449):
        end(name)
    recovery.settle_and_close()
    assert [row.task_id for row in ledger().open_after(0, 1000)] == ["tended-449"]


def test_who_uses_a_machine_without_a_node_worker_tends_its_ledger(torch: Torch) -> None:
    enqueue(torch, "untended")
    end("untended")
    run_client("torch.tasks()")
    assert ledger().state("untended") is RowState.CLOSED


def test_a_record_that_was_lost_alone_is_made_again(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    enqueue(torch, "record-lost")
    broker.client.delete(keys.task_record("record-lost"))
    recovery.settle_and_close()
    assert torch.task("record-lost").status is TaskState.QUEUED


def test_what_nobody_saw_for_longer_than_ends_are_kept_is_not_run_again(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    tmp_path: Path,
) -> None:
    with client_of(broker, tmp_path / "short", TORCH_RESULT_DAYS="0.00003") as client:
        enqueue(client, "unseen")
        end("unseen")
        until(lambda: not broker.client.exists(keys.task_record("unseen")), "its record expires")
        recovery.settle_and_close()
        assert ledger().state("unseen") is None
        with pytest.raises(TaskNotFound):
            client.task("unseen").record()


def test_a_task_whose_failure_was_told_is_forgotten_by_the_broker_too(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    enqueue(torch, "told-0", "told-1")
    fleet().records.take("told-1", _an_agent())
    for name in ("told-0", "told-1"):
        ledger().note(name, RowState.WITHDRAWN)
    recovery.settle_and_close()
    assert ledger().open_after(0, 10) == []
    assert [record.spec.id for record in torch.tasks()] == ["told-1"], "what an agent has begun goes on"


def test_a_task_that_is_enqueued_anew_while_another_process_withdraws_it_is_not_lost(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enqueue(torch, "anew")
    ledger().note("anew", RowState.WITHDRAWN)
    seen_by_the_other = ledger().unsent()
    enqueue(torch, "anew")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "unsent", lambda _: seen_by_the_other)
        recovery.settle_and_close()
    assert ledger().state("anew") is RowState.PUBLISHED
    assert torch.task("anew").record().state is TaskState.QUEUED


def _an_agent() -> Any:
    from datetime import UTC, datetime

    from torch_tasks.model.agent import AgentInfo

    return AgentInfo(
        agent_id="nobody",
        role="none",
        kind="shell",
        node="n",
        pid=1,
        host="h",
        incarnation=1,
        workdir="/",
        tmux_socket="s",
        started_at=datetime.now(UTC),
    )
