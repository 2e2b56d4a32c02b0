"""The ledger's promise: no accepted task is lost, and no refused one appears."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from celery import chain, chord, group
from celery._state import _task_stack
from clients import client_of, run_client, start_client
from faults import FaultyBroker, body, broker  # noqa: F401 - a fixture in the place of the session's
from kombu.exceptions import OperationalError
from nodes import Node
from waiting import until

from torch_tasks import TaskSpec, TaskState, Torch
from torch_tasks.app import app
from torch_tasks.errors import BrokerUnreachable, LedgerOff, LedgerUnusable, TaskNotFound
from torch_tasks.fleet import fleet
from torch_tasks.keys import agent_queue
from torch_tasks.settings import settings
from torch_tasks.store.ledger import Ledger, RowState
from torch_tasks.tasks import recovery
from torch_tasks.tasks.run import run

NOBODY = agent_queue("nobody")
"""The queue of an agent that never comes: what is sent there stays there."""


@pytest.fixture
def torch(broker: FaultyBroker, tmp_path: Path) -> Iterator[Torch]:  # noqa: F811
    """A client with a disk of its own, of an empty broker."""
    with client_of(broker, tmp_path / "state", TORCH_BROKER_CONNECT_SECONDS="0.5") as torch:
        broker.empty()
        yield torch
        if broker.status != "running":
            broker.start()


@pytest.fixture
def away(broker: FaultyBroker, torch: Torch) -> Iterator[FaultyBroker]:  # noqa: F811
    """A broker that does not answer until it is started."""
    broker.stop()
    yield broker
    broker.start()


def ledger() -> Ledger:
    found = fleet().ledger
    assert found is not None
    return found


def nobodys(**fields: Any) -> TaskSpec:
    """A task that stays in its queue."""
    return TaskSpec(prompt="true", agent="nobody", **fields)


# ── noted before it is published ─────────────────────────────────────────────────────────────────────────────────


def test_the_row_is_on_the_disk_before_anything_is_on_the_broker(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    known = "torch.tasks()\nprint('it knows the broker for its fleet', flush=True)\nsys.stdin.readline()\n"
    client = start_client(
        f"{known}torch.enqueue('true', agent='nobody', id='early-1')", TORCH_BROKER_CONNECT_SECONDS="60"
    )
    assert client.stdin
    assert client.stdout
    assert client.stdout.readline()
    broker.process().suspend()
    client.stdin.write("\n")
    client.stdin.flush()
    until(lambda: ledger().exists() and ledger().state("early-1"), "the row is written")
    assert ledger().state("early-1") is RowState.WRITTEN
    client.kill()
    client.communicate()
    broker.process().resume()
    assert broker.client.keys("nova:torch:task*") == []
    until(lambda: torch.tasks() and broker.queued(NOBODY) == ["early-1"], "the next reader puts it back")
    assert torch.task("early-1").status is TaskState.QUEUED


def test_whichever_of_celerys_ways_sends_a_task_it_is_noted(torch: Torch) -> None:
    specs = [nobodys() for _ in range(8)]
    run.delay(specs[0])
    run.apply_async((specs[1],))
    app.send_task("torch.run", [specs[2].wire()])
    chain(run.s(specs[3]), run.s(nobodys())).delay()
    group(run.s(spec) for spec in specs[4:6]).delay()
    chord([run.s(spec) for spec in specs[6:8]])(run.s(nobodys()))
    assert [ledger().state(spec.id) for spec in specs] == [RowState.PUBLISHED] * 8


def test_a_batch_is_noted_task_by_task_and_seen_to_by_tending(
    broker: FaultyBroker,  # noqa: F811
    torch: Torch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specs = [nobodys() for _ in range(5)]
    with app.producer_or_acquire() as producer, producer.batch():
        for spec in specs:
            run.apply_async((spec,), producer=producer)
        assert broker.queued(NOBODY) == []
        assert [ledger().state(spec.id) for spec in specs] == [RowState.WRITTEN] * 5
    monkeypatch.setattr("torch_tasks.store.ledger.PUBLISHING_SECONDS", 0)
    recovery.settle_and_close()
    assert broker.queued(NOBODY) == [spec.id for spec in specs]
    assert [ledger().state(spec.id) for spec in specs] == [RowState.PUBLISHED] * 5


def test_the_rest_of_a_chain_is_noted_where_its_beginning_ran(node: Node, torch: Torch) -> None:
    node.agent_worker("developer-1")
    first, second = TaskSpec(prompt="echo one", role="developer"), TaskSpec(prompt="echo two", role="developer")
    body_task = TaskSpec(prompt="echo all", role="developer")
    chain(run.s(first), run.s(second)).delay()
    chord([run.s(TaskSpec(prompt="true", role="developer"))])(run.s(body_task))
    there = Ledger(node.state / "ledger.sqlite", settings().broker().place)
    for spec in (second, body_task):
        until(lambda spec=spec: spec.id in {record.spec.id for record in torch.tasks()}, "it is sent")
        assert torch.task(spec.id).result(timeout=60).succeeded
        assert ledger().state(spec.id) is None
        assert there.state(spec.id) in {RowState.PUBLISHED, RowState.CLOSED}
    assert ledger().state(first.id) in {RowState.PUBLISHED, RowState.CLOSED}
    assert there.state(first.id) is None


def test_what_is_put_back_is_what_was_published(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    prompt = "echo 日本 \\ '\"$HOME`x` \r\n" * 38_000
    first = TaskSpec(prompt=prompt, agent="nobody", priority="urgent", context={"own": [1, None]})
    assert 1_000_000 < len(prompt.encode()) < settings().prompt_limit_bytes
    chain(run.s(first), run.s(nobodys())).apply_async(link=run.s(nobodys()), expires=10_000)
    [before] = broker.messages(NOBODY)
    broker.empty()
    recovery.restore_all()
    [after] = broker.messages(NOBODY)
    for message in (before, after):
        del message["properties"]["delivery_tag"]
        message.pop("torch-signature", None)  # who puts it back signs it anew
    assert after == before
    assert torch.task(first.id).record().spec == first
    assert len(body(after)[2]["chain"]) == 1


# ── closed by the end ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_end_closes_the_row(node: Node, torch: Torch) -> None:
    node.agent_worker("developer-1")
    task = torch.enqueue("echo done", role="developer")
    unseen = torch.enqueue("echo done too", role="developer")
    assert ledger().state(task.id) is RowState.PUBLISHED
    assert task.result(timeout=60).succeeded
    assert ledger().state(task.id) is RowState.CLOSED
    until(lambda: unseen.status.ended, "the other one ends")
    assert ledger().state(unseen.id) is RowState.PUBLISHED
    recovery.settle_and_close()
    assert ledger().state(unseen.id) is RowState.CLOSED
    [account] = [ledger().account(row) for row in ledger().closed_after(0, 10) if row.task_id == unseen.id]
    assert account == fleet().records.account(unseen.id)


def test_the_canceller_keeps_the_end_even_of_a_task_from_elsewhere(torch: Torch, tmp_path: Path) -> None:
    run_client("torch.enqueue('true', agent='nobody', id='theirs-1')", TORCH_STATE_DIR=str(tmp_path / "other"))
    assert ledger().state("theirs-1") is None
    torch.task("theirs-1").cancel()
    torch.enqueue("true", agent="nobody", id="mine-1").cancel()
    assert [ledger().state(task_id) for task_id in ("theirs-1", "mine-1")] == [RowState.CLOSED] * 2


# ── without a broker ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_loud_failure_leaves_nothing(away: FaultyBroker, torch: Torch) -> None:
    with pytest.raises(BrokerUnreachable):
        torch.enqueue("true", agent="nobody", id="loud-1")
    with pytest.raises(BrokerUnreachable):
        run.delay(nobodys(id="loud-2"))
    assert ledger().open_after(0, 10) == []
    away.start()
    recovery.settle_and_close()
    assert away.queued(NOBODY) == []
    assert torch.tasks() == []


def test_spooled_tasks_are_sent_in_order_and_once_before_any_later_one(away: FaultyBroker, torch: Torch) -> None:
    names = [f"spooled-{number}" for number in range(10)]
    tasks = [torch.enqueue("true", agent="nobody", id=name, spool=True) for name in names]
    assert all(task.spooled for task in tasks)
    with pytest.raises(BrokerUnreachable, match="task spooled-3 waits on this machine's disk and is sent when"):
        tasks[3].record()
    with pytest.raises(BrokerUnreachable, match="spooled-3 waits on this machine's disk"):
        tasks[3].result(timeout=1)
    away.start()
    torch.enqueue("true", agent="nobody", id="later")
    assert away.queued(NOBODY) == [*names, "later"]
    assert [task.status for task in tasks] == [TaskState.QUEUED] * 10
    assert not any(task.spooled for task in tasks)
    recovery.settle_and_close()
    assert away.queued(NOBODY) == [*names, "later"]


def test_another_program_sends_what_was_spooled(away: FaultyBroker, torch: Torch) -> None:
    task_id = run_client("print(torch.enqueue('true', agent='nobody', spool=True).id)").strip()
    away.start()
    assert run_client("print([record.spec.id for record in torch.tasks()])").strip() == str([task_id])
    assert away.queued(NOBODY) == [task_id]


def test_with_a_broker_spool_changes_nothing(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    task = torch.enqueue("true", agent="nobody", spool=True)
    assert (task.spooled, task.status, broker.queued(NOBODY)) == (False, TaskState.QUEUED, [task.id])


def test_the_command_says_that_a_task_was_spooled(away: FaultyBroker, torch: Torch) -> None:
    command = [sys.executable, "-m", "torch_tasks.cli", "run", "--agent", "nobody", "--id", "by-command-1", "true"]
    loud = forked.run(command)
    assert (loud.returncode, loud.stdout) == (4, "")
    kept = forked.run([*command, "--spool"], check=True)
    assert kept.stdout == "by-command-1\n"
    assert "waits on this machine's disk" in kept.stderr
    away.start()
    forked.run([sys.executable, "-m", "torch_tasks.cli", "agents"], check=True)
    assert away.queued(NOBODY) == ["by-command-1"]


def test_the_doctor_looks_at_the_ledger(away: FaultyBroker, torch: Torch) -> None:
    def finding() -> str:
        doctor = [sys.executable, "-m", "torch_tasks.cli", "doctor", "--json"]
        found = json.loads(forked.run(doctor).stdout)
        return next(str(one["detail"]) for one in found if one["what"] == "ledger")

    assert "no task was enqueued here yet" in finding()
    torch.enqueue("true", agent="nobody", spool=True)
    assert "1 open, 1 spooled, broker not reconciled yet" in finding()
    away.start()
    torch.tasks()
    assert "1 open, 0 spooled, broker last reconciled" in finding()


def test_a_lost_connection_is_tried_again_soon(away: FaultyBroker, torch: Torch) -> None:
    pauses: list[float] = []
    with app.connection_for_read() as connection, pytest.raises(OperationalError):
        connection.ensure_connection(lambda _, pause: pauses.append(pause), max_retries=2)
    assert pauses == [0.5, 1.0]


# ── from within a task ───────────────────────────────────────────────────────────────────────────────────────────


class Hosted:
    """What a task sees of the agent worker it runs in."""

    is_leaving = False


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosted]:
    """This thread, as if it ran a task."""
    host = Hosted()
    monkeypatch.setattr(app, "host", host)
    _task_stack.push(run)
    run.push_request(id="parent", root_id="parent", called_directly=False, children=[])
    yield host
    run.pop_request()
    _task_stack.pop()


def test_what_a_task_sends_waits_for_the_broker(away: FaultyBroker, torch: Torch, hosted: Hosted) -> None:
    returning = threading.Timer(2, away.start)
    returning.start()
    run.delay(nobodys(id="next-1"))
    returning.join()
    assert away.queued(NOBODY) == ["next-1"]
    assert ledger().state("next-1") is RowState.PUBLISHED


def test_what_a_leaving_worker_cannot_send_any_more_is_spooled(
    away: FaultyBroker, torch: Torch, hosted: Hosted
) -> None:
    hosted.is_leaving = True
    run.delay(nobodys(id="next-2"))
    assert ledger().state("next-2") is RowState.SPOOLED
    away.start()
    recovery.settle_and_close()
    assert away.queued(NOBODY) == ["next-2"]


# ── without a ledger ─────────────────────────────────────────────────────────────────────────────────────────────


def test_turned_off_it_touches_no_file(broker: FaultyBroker, torch: Torch, tmp_path: Path) -> None:  # noqa: F811
    with client_of(broker, tmp_path / "off", TORCH_LEDGER="false") as without:
        assert without.enqueue("true", agent="nobody").cancel() is TaskState.QUEUED
        assert without.tasks()[0].state is TaskState.CANCELLED
        recovery.settle_and_close()
        recovery.restore_all()
        with pytest.raises(LedgerOff, match="TORCH_LEDGER=false"):
            without.enqueue("true", agent="nobody", id="off-1", spool=True)
        with pytest.raises(TaskNotFound):
            without.task("off-1").record()
    assert not list((tmp_path / "off").glob("ledger*"))


def test_a_damaged_ledger_accepts_nothing_but_lets_look(broker: FaultyBroker, torch: Torch) -> None:  # noqa: F811
    torch.enqueue("true", agent="nobody", id="before-1")
    path = ledger().path
    for file in path.parent.glob("ledger.sqlite*"):
        file.unlink()
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(LedgerUnusable, match=r"ledger\.sqlite is damaged.*Move it away"):
        torch.enqueue("true", agent="nobody", id="refused-1")
    assert [record.spec.id for record in torch.tasks()] == ["before-1"]
    assert torch.task("before-1").cancel() is TaskState.QUEUED
    path.unlink()
    torch.enqueue("true", agent="nobody", id="after-1")
    assert broker.queued(NOBODY) == ["after-1"], "what was cancelled has left its queue"


def test_on_a_full_disk_nothing_is_published(broker: FaultyBroker, torch: Torch, small_disk: Path) -> None:  # noqa: F811
    accepted: list[str] = []
    with client_of(broker, small_disk / "state") as client:

        def fill() -> None:
            for number in range(100):
                accepted.append(client.enqueue("x" * 100_000, agent="nobody", id=f"full-{number}").id)

        with pytest.raises(LedgerUnusable, match="full"):
            fill()
        assert 3 < len(accepted) < 30
        assert broker.queued(NOBODY) == accepted
        assert len(client.tasks()) == len(accepted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_task_that_a_killed_client_had_accepted_runs_once(
    node: Node, torch: Torch, tmp_path: Path, seed: int
) -> None:
    node.agent_worker("developer-1")
    chance = random.Random(seed)
    effects = tmp_path / "effects"
    accepted: list[str] = []
    begun, kills = 0, 0
    while begun < 200:
        client = start_client(
            f"for number in range({begun}, 200):\n"
            f"    print(torch.enqueue(f'echo {{number}} >> {effects}', role='developer', id=f'k{seed}-{{number}}').id, "
            "flush=True)"
        )
        assert client.stdout is not None
        for _ in range(chance.randint(1, 60)):
            if line := client.stdout.readline():
                accepted.append(line.strip())
        if client.poll() is None:
            client.kill()
            kills += 1
        accepted += client.communicate()[0].split()
        begun = len(accepted) + kills  # the one that was being enqueued is not enqueued again
    assert kills >= 3
    torch.tasks()
    for task_id in accepted:
        assert torch.task(task_id).result(timeout=60).succeeded
    until(lambda: all(record.state.ended for record in torch.tasks(500)), "tasks that were not printed end, too")
    ran = effects.read_text().split()
    assert len(ran) == len(set(ran))
    assert {task_id.partition("-")[2] for task_id in accepted} <= set(ran)
    assert len(ran) <= len(accepted) + kills
