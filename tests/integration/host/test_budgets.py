"""Budgets of accounts: counted once for the whole fleet, kept to by all who share one, and not forgotten."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import forked
import pytest
from clients import client_of
from fake_kind import FakeKind
from faults import FaultyBroker, broker  # noqa: F401 - a fixture in the place of the session's
from machine import TORCH_TASKS
from nodes import Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.communication import MessageState, NovaOrchestrator
from torch_tasks.errors import InvalidSettings
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.model.budget import Budget, Charge, micro_usd
from torch_tasks.settings import Settings, settings
from torch_tasks.workers.host.put_back import MachineSpending
from torch_tasks.workers.host.quota import Spending

DAY_MS = 86_400_000


@pytest.fixture
def torch(broker: FaultyBroker, tmp_path: Path) -> Iterator[Torch]:  # noqa: F811
    """A client of an empty broker; no day ends while it is there."""
    left = DAY_MS / 1000 - time.time() % (DAY_MS / 1000)
    if left < 120:
        time.sleep(left + 1)
    with client_of(broker, tmp_path / "state", TORCH_BUDGETS='{"fake": {"calls_per_day": 2}}') as torch:
        broker.empty()
        yield torch


@pytest.fixture
def node(broker: FaultyBroker, torch: Torch) -> Iterator[Node]:  # noqa: F811
    """One machine."""
    node = Node("node-a", broker, torch)
    yield node
    node.close()


def machine(broker: FaultyBroker, folder: Path, name: str, **limits: float) -> Spending:  # noqa: F811
    """One machine's use of an account with these limits."""
    chosen = Settings(
        broker_url=broker.url, state_dir=folder / name, node=name, budgets={"claude": Budget.model_validate(limits)}
    )
    return Spending("claude", Fleet(chosen))


def used(name: str, account: str = "fake") -> int:
    """How much of a budget is used, as the command tells programs."""
    done = forked.run([TORCH_TASKS, "budget", account, "--json"], check=True)
    lines: list[dict[str, Any]] = json.loads(done.stdout)
    return next(int(line["used"]) for line in lines if line["name"] == name)


def wait_for_minute() -> None:
    """So that no minute ends in the next seconds, by the clock of this machine, which is the broker's."""
    if time.time() % 60 > 45:
        time.sleep(61 - time.time() % 60)


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("torch")
def test_the_fleet_shares_a_budget(broker: FaultyBroker, tmp_path: Path) -> None:  # noqa: F811
    a, b = (machine(broker, tmp_path, name, calls_per_day=3) for name in ("node-a", "node-b"))
    assert [spending.ask().closed_seconds for spending in (a, b, a)] == [0, 0, 0]
    refused = b.ask()
    assert 0 < refused.closed_seconds <= 86400
    assert refused.why == "the budget of account claude is used up: 3 calls per day"
    assert used("calls_per_day", "claude") == 3  # who is refused has used nothing


@pytest.mark.usefixtures("torch")
def test_the_longest_of_the_reached_limits_counts(broker: FaultyBroker, tmp_path: Path) -> None:  # noqa: F811
    wait_for_minute()
    spending = machine(broker, tmp_path, "node-a", calls_per_minute=1, calls_per_hour=2)
    spending.ask()
    assert 0 < spending.ask().closed_seconds <= 60
    spending.count(Charge(calls=1))
    assert "2 calls per hour" in spending.ask().why


@pytest.mark.usefixtures("torch")
def test_tokens_close_an_account_for_the_day(broker: FaultyBroker, tmp_path: Path) -> None:  # noqa: F811
    spending = machine(broker, tmp_path, "node-a", tokens_per_day=1000)
    spending.count(Charge(tokens=999))
    assert not spending.ask().closed_seconds
    spending.count(Charge(tokens=1))
    assert "1,000 tokens per day" in spending.ask().why


@pytest.mark.usefixtures("torch")
def test_money_closes_an_account_for_the_day(broker: FaultyBroker, tmp_path: Path) -> None:  # noqa: F811
    a, b = (machine(broker, tmp_path, name, usd_per_day=2.5) for name in ("node-a", "node-b"))
    a.count(Charge(micro_usd=micro_usd(2.49)))
    assert not b.ask().closed_seconds
    b.count(Charge(micro_usd=micro_usd(0.02)))
    assert a.ask().why == "the budget of account claude is used up: 2.50 USD per day"
    broker.lose_everything()
    a.count()
    assert not a.ask().closed_seconds  # b has yet to come back
    b.count()
    assert 0 < a.ask().closed_seconds <= 86400
    line = next(one for one in a._fleet.budgets.lines(["claude"]) if one.name == "usd_per_day")
    assert (line.used, line.limit, line.exhausted) == (2.51, 2.5, True)


@pytest.mark.usefixtures("torch")
def test_no_two_get_the_last_call(broker: FaultyBroker, tmp_path: Path) -> None:  # noqa: F811
    machines = [machine(broker, tmp_path, f"node-{name}", calls_per_day=20) for name in range(4)]
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda number: machines[number % 4].ask().closed_seconds, range(60)))
    assert answers.count(0) == 20


@pytest.mark.usefixtures("torch")
def test_a_broker_that_forgot_learns_what_was_used(broker: FaultyBroker, tmp_path: Path) -> None:  # noqa: F811
    a, b = (machine(broker, tmp_path, name, calls_per_day=10) for name in ("node-a", "node-b"))
    a.count(Charge(calls=4, tokens=70))
    b.count(Charge(calls=3))
    broker.lose_everything()
    a.count()
    assert used("calls_per_day", "claude") == 4
    MachineSpending(b._fleet).put_back()
    MachineSpending(b._fleet).put_back()
    assert (used("calls_per_day", "claude"), used("tokens_per_day", "claude")) == (7, 70)


@pytest.mark.usefixtures("torch")
def test_what_is_used_while_the_broker_is_away_is_counted_later(
    broker: FaultyBroker,  # noqa: F811
    tmp_path: Path,
) -> None:
    spending = machine(broker, tmp_path, "node-a", calls_per_day=10)
    spending.ask()
    broker.stop()
    spending.count(Charge(calls=2, tokens=50))
    spending.count(Charge(tokens=5))
    broker.start()
    assert spending.ask().closed_seconds == 0
    assert (used("calls_per_day", "claude"), used("tokens_per_day", "claude")) == (4, 55)


def test_a_budget_with_an_unknown_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_BUDGETS", '{"claude": {"calls_per_fortnight": 3}}')
    settings.cache_clear()
    with pytest.raises(InvalidSettings, match="calls_per_fortnight"):
        settings()
    monkeypatch.undo()
    settings.cache_clear()


# ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_task_over_budget_is_parked_and_others_take_it(torch: Torch, node: Node) -> None:
    kind = FakeKind(node)
    kind.worker(TORCH_BUDGETS='{"fake": {"calls_per_day": 2}}')
    for number in (1, 2):
        assert torch.enqueue(f"question {number}", role="developer").result(timeout=60).succeeded
    assert used("calls_per_day") == 2
    task = torch.enqueue("echo by a shell", role="developer")
    until(lambda: task.status is TaskState.PARKED, "the task is put back")
    assert "the budget of account fake is used up: 2 calls per day" in str(task.record().note)
    until(lambda: torch.agent("developer-1").state is AgentState.LIMITED, "the agent is limited")
    shown = forked.run([TORCH_TASKS, "budget"], check=True).stdout
    assert "used up" in next(line for line in shown.splitlines() if "calls per day" in line)
    node.agent_worker("developer-2")
    result = task.result(timeout=30)
    assert (result.agent, result.answer) == ("developer-2", "by a shell\n")
    assert len(kind.prompts()) == 2


@pytest.mark.slow
def test_a_message_costs_a_call_and_waits_for_one(torch: Torch, node: Node) -> None:
    kind = FakeKind(node)
    kind.worker(TORCH_BUDGETS='{"fake": {"calls_per_day": 2}}')
    assert torch.enqueue("get ready", role="developer").result(timeout=60).succeeded
    nova = NovaOrchestrator()
    first, second = (nova.send_message("developer-1", text) for text in ("one", "two"))
    nova.await_delivery(first.id, 30)
    until(lambda: torch.agent("developer-1").state is AgentState.LIMITED, "the agent is limited")
    assert nova.message(second.id).state is MessageState.ACCEPTED
    assert (used("calls_per_day"), len(kind.prompts())) == (2, 2)


@pytest.mark.slow
def test_a_parked_task_is_done_when_the_next_window_opens_and_the_count_outlives_the_worker(
    torch: Torch, node: Node
) -> None:
    wait_for_minute()
    kind = FakeKind(node)
    worker = kind.worker(TORCH_BUDGETS='{"fake": {"calls_per_minute": 1}}')
    minute = time.time() // 60
    assert torch.enqueue("question 1", role="developer").result(timeout=60).succeeded
    worker.kill()
    worker.start()
    worker.ready()
    task = torch.enqueue("question 2", role="developer")
    until(lambda: task.status is TaskState.PARKED, "the task is put back")
    assert task.result(timeout=90).succeeded
    assert time.time() // 60 > minute
    assert len(kind.prompts()) == 2
