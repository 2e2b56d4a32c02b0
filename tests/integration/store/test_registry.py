"""The agent registry: entering, finding, counting and watching agents."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from nodes import Broker, Node
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.errors import AgentNotFound, AgentTaken
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState, Performance
from torch_tasks.model.fields import now
from torch_tasks.model.task import Failure, FailureKind, TaskResult, TaskState
from torch_tasks.orchestration import AgentRegistry
from torch_tasks.orchestration.housekeeping import run_housekeeping
from torch_tasks.store.agents import AgentRecords
from torch_tasks.store.task_outcomes import NewTask
from torch_tasks.transport.deliveries import list_of


def agent(agent_id: str, role: str = "developer", skills: tuple[str, ...] = (), **fields: Any) -> AgentInfo:
    """An agent that is not registered yet."""
    known: dict[str, Any] = {"agent_id": agent_id, "role": role, "skills": skills, "kind": "shell", "node": "n"}
    known |= {"pid": 1, "host": "h", "incarnation": 0, "workdir": "/", "tmux_socket": "/t", "started_at": now()}
    return AgentInfo.model_validate(known | {"state": AgentState.READY} | fields)


@pytest.fixture
def registry(torch: Torch, broker: Broker) -> Iterator[AgentRecords]:
    """An empty registry."""
    broker.empty()
    yield AgentRecords()
    broker.empty()


def enter(registry: AgentRecords, *agents: AgentInfo) -> list[AgentInfo]:
    """Register them, each with a first heartbeat."""
    entered = [registry.register(info, holder_is_gone=True) for info in agents]
    for info in entered:
        registry.heartbeat(info)
    return entered


def ids(found: list[AgentInfo]) -> list[str]:
    return [info.agent_id for info in found]


def end_task(task_id: str, by: AgentInfo, failure: FailureKind | None = None) -> None:
    """A task that this agent took, began and ended."""
    records, registry = fleet().records, fleet().registry
    records.accept(NewTask(task_id, {"id": task_id, "prompt": "true"}, "torch.any.any"))
    records.take(task_id, by)
    registry.heartbeat(by.model_copy(update={"current_task": task_id}))
    records.move(task_id, TaskState.RUNNING, by=by)
    status = TaskState.CANCELLED if failure is FailureKind.CANCELLED else TaskState.FAILED
    error = Failure(kind=failure, message="so it was") if failure else None
    records.finish(TaskResult(task_id=task_id, status=status if failure else TaskState.SUCCEEDED, error=error), by=by)
    registry.heartbeat(by)


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["a-go", "b-py", "c-both", "d-qa"]),
        ({"role": "developer"}, ["a-go", "b-py", "c-both"]),
        ({"role": "Developer", "skills": ["Python"]}, ["b-py", "c-both"]),
        ({"skills": ["python", "go"]}, ["c-both"]),
        ({"skills": ["python", "go"], "match": "any"}, ["a-go", "b-py", "c-both", "d-qa"]),
        ({"role": "qa", "skills": ["rust", "go"], "match": "any"}, ["d-qa"]),
        ({"skills": ["shell"], "limit": 2}, ["a-go", "b-py"]),
        ({"wished": ["go", "python"]}, ["c-both", "a-go", "b-py", "d-qa"]),
        ({"role": "dev"}, []),
        ({"skills": ["py"]}, []),
    ],
)
def test_agents_are_found_by_role_and_skills(registry: AgentRecords, asked: dict[str, Any], found: list[str]) -> None:
    enter(
        registry,
        agent("a-go", skills=("go",)),
        agent("b-py", skills=("python",)),
        agent("c-both", skills=("go", "python")),
        agent("d-qa", role="qa", skills=("go", "python-x")),
    )
    assert ids(registry.find_available_agents(**asked)) == found


def test_the_free_come_first_then_the_best_then_the_least_loaded(registry: AgentRecords) -> None:
    busy, bad, good, _ = enter(registry, *(agent(name) for name in ("busy", "bad", "good", "new")))
    for number in range(3):
        end_task(f"b-{number}", bad, FailureKind.EXIT_CODE)
        end_task(f"g-{number}", good)
    registry.heartbeat(busy.model_copy(update={"state": AgentState.WORKING, "current_task": "t"}))
    assert ids(registry.find_available_agents()) == ["good", "new", "bad", "busy"]
    assert [info.load for info in registry.find_available_agents()] == [0, 0, 0, 1]


def test_agents_that_are_offline_or_cannot_work_are_not_available(registry: AgentRecords, broker: Broker) -> None:
    left, limited, silent, there = enter(registry, *(agent(name) for name in ("left", "limited", "silent", "there")))
    registry.leave(left)
    registry.heartbeat(limited.model_copy(update={"state": AgentState.LIMITED}))
    broker.client.zadd(keys.AGENT_HEARTBEAT, {silent.agent_id: 1})
    assert ids(registry.find_available_agents()) == [there.agent_id]
    assert {info.agent_id: info.status for info in registry.agents()} == {
        "left": "offline",
        "limited": "active",
        "silent": "offline",
        "there": "active",
    }
    assert registry.get_agent("there").last_heartbeat
    with pytest.raises(AgentNotFound, match="nonesuch"):
        registry.get_agent("nonesuch")


def test_what_waits_in_its_own_queue_is_an_agents_load(registry: AgentRecords, torch: Torch) -> None:
    (info,) = enter(registry, agent("dev-1"))
    torch.enqueue("true", agent="dev-1")
    torch.enqueue("true", agent="dev-1", priority="urgent")
    registry.heartbeat(info.model_copy(update={"state": AgentState.WORKING, "current_task": "t"}))
    assert registry.get_agent("dev-1").load == 3


# ── the index ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_life_with_other_skills_is_found_by_these_alone(registry: AgentRecords, broker: Broker) -> None:
    enter(registry, agent("dev-1", skills=("python", "go")), agent("dev-2", skills=("python",)))
    enter(registry, agent("dev-1", role="qa", skills=("rust",), kind="claude"))
    assert ids(registry.find_available_agents(skills=["python"])) == ["dev-2"]
    assert ids(registry.find_available_agents("qa", ["rust", "claude"])) == ["dev-1"]
    assert registry.skills() == ["python", "rust"]
    assert index(broker) == expected(registry)
    assert traits(broker) == {"dev-1": "ready qa claude rust", "dev-2": "ready developer shell python"}
    # What the index says is believed only if the agent's traits say so, too.
    broker.client.zadd(keys.AGENT_INDEX, {"skill cobol dev-2": 0})
    assert registry.find_available_agents(skills=["cobol"]) == []


def test_of_many_who_race_for_one_id_one_gets_it_and_the_index_is_its_own(
    registry: AgentRecords, broker: Broker
) -> None:
    def attempt(number: int) -> AgentInfo | None:
        with suppress(AgentTaken):
            return AgentRecords().register(agent("dev-1", skills=(f"s{number}",), pid=number))
        return None

    with ThreadPoolExecutor(8) as pool:
        entered = [info for info in pool.map(attempt, range(40)) if info]
    assert len(entered) == 1
    assert registry.skills() == list(entered[0].skills)
    assert index(broker) == expected(registry)


def test_changing_at_random_from_many_sides_leaves_an_index_of_what_is_entered(
    registry: AgentRecords, broker: Broker
) -> None:
    def change(number: int) -> None:
        info = agent(f"dev-{number % 5}", role=f"r{number % 3}", skills=(f"s{number % 7}", f"s{number % 4}"))
        AgentRecords().register(info, holder_is_gone=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(200)))
    assert index(broker) == expected(registry)
    assert traits(broker) == {
        info.agent_id: " ".join((info.state, info.role, info.kind, *info.skills)) for info in registry.agents()
    }
    assert registry.get_agent("dev-0").incarnation == 40


def index(broker: Broker) -> set[str]:
    return set(broker.client.zrange(keys.AGENT_INDEX, 0, -1))


def traits(broker: Broker) -> dict[str, str]:
    return dict(broker.client.hgetall(keys.AGENT_TRAITS))


def expected(registry: AgentRecords) -> set[str]:
    """What the index has to hold, from the entries alone."""
    return {
        f"{what} {info.agent_id}"
        for info in registry.agents()
        for what in (f"role {info.role}", f"kind {info.kind}", *(f"skill {skill}" for skill in info.skills))
    }


# ── performance ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_ends_that_are_up_to_the_agent_count_and_others_do_not(registry: AgentRecords) -> None:
    (info,) = enter(registry, agent("dev-1"))
    assert registry.get_agent("dev-1").performance_metrics.success_rate == 0.8
    end_task("t-1", info)
    for kind in FailureKind:
        end_task(f"t-{kind}", info, kind)
    found = registry.get_agent("dev-1").performance_metrics
    assert (found.succeeded, found.failed) == (1, sum(kind.up_to_agent for kind in FailureKind)) == (1, 7)
    assert found.success_rate == round(5 / 13, 4)
    assert found.last_ended
    assert found.seconds >= 0


def test_a_worker_killed_after_the_result_counts_once(shared_node: Node, torch: Torch) -> None:
    """The record has the end, the delivery is not settled: the next worker gets the task again."""
    worker = shared_node.agent_worker("counted-1")
    assert worker.ready()
    task = torch.enqueue("sleep 1; echo done", agent="counted-1")
    until(lambda: task.status is TaskState.RUNNING, "it runs")
    for state in fleet().records.changes(task.id):
        if state and state.ended:
            worker.kill()
            break
    worker.start()
    assert worker.ready()
    again = torch.enqueue("true", agent="counted-1")
    assert again.result(timeout=60).succeeded
    found = torch.agent("counted-1").performance_metrics
    assert (found.succeeded, found.failed) == (2, 0)
    assert found.seconds >= 1
    assert torch.enqueue("exit 3", agent="counted-1").result(timeout=60).exit_code == 3
    assert torch.agent("counted-1").performance_metrics.failed == 1
    worker.teardown()


def test_an_agent_restores_the_counts_that_the_broker_forgot_and_no_end_counts_twice(
    registry: AgentRecords, shared_node: Node, torch: Torch, broker: Broker
) -> None:
    """By its next heartbeat to an empty broker, and by its next worker's start."""
    worker = shared_node.agent_worker("recalled-1")
    assert worker.ready()

    def counted() -> tuple[int, int]:
        info = worker.info
        return (info.performance_metrics.succeeded, info.performance_metrics.failed) if info else (-1, -1)

    for script in ("sleep 1", "exit 3"):
        torch.enqueue(script, agent="recalled-1").result(timeout=60)
    known = torch.agent("recalled-1").performance_metrics
    assert counted() == (1, 1)
    broker.empty()
    until(lambda: counted() == (1, 1), "the agent has restored them")
    restored = torch.agent("recalled-1").performance_metrics
    assert (restored.success_rate, restored.last_ended) == (known.success_rate, known.last_ended)
    assert restored.seconds == pytest.approx(known.seconds, abs=0.01)
    assert torch.enqueue("true", agent="recalled-1").result(timeout=60).succeeded
    assert counted() == (2, 1)
    worker.kill()
    broker.empty()
    worker.start()
    assert worker.ready()
    until(lambda: counted() == (2, 1), "it has restored them again, perhaps by the last task's end itself")
    assert torch.enqueue("true", agent="recalled-1").result(timeout=60).succeeded
    assert counted() == (3, 1)
    worker.restart()
    assert worker.ready()
    assert counted() == (3, 1)
    worker.teardown()


def test_a_worker_killed_between_its_two_notes_of_an_end_neither_waits_for_it_nor_forgets_to_count_it(
    registry: AgentRecords, shared_node: Node, torch: Torch, broker: Broker
) -> None:
    """Its try is noted, its journal is not, and the broker comes back empty: no process reports the end again."""
    worker = shared_node.agent_worker("noted-1")
    assert worker.ready()
    task = torch.enqueue("true", agent="noted-1")
    assert task.result(timeout=60).succeeded
    file = worker.folder / "journal.json"
    until(lambda: json.loads(file.read_bytes())["current"] is None, "it has noted both")
    worker.kill()
    current = {"task_id": task.id, "attempt": 1, "begun_at": now().isoformat()}
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"current": current, "performance": {}}))
    broker.empty()
    worker.start()
    assert worker.ready()
    assert torch.enqueue("true", agent="noted-1").result(timeout=60).succeeded
    assert torch.agent("noted-1").performance_metrics.succeeded == 2
    worker.teardown()


def test_of_two_accounts_of_an_agents_tasks_the_one_that_knows_more_stands(registry: AgentRecords) -> None:
    few, many = Performance(succeeded=1), Performance(succeeded=3, failed=2, seconds=7.5, last_ended=now())
    (info,) = enter(registry, agent("dev-1", performance_metrics=many))
    assert registry.get_agent("dev-1").performance_metrics.success_rate == many.success_rate
    again = registry.register(agent("dev-1", performance_metrics=few), holder_is_gone=True)
    assert (again.performance_metrics.succeeded, again.performance_metrics.failed) == (3, 2)
    end_task("t-1", again)
    registry.heartbeat(info.model_copy(update={"incarnation": again.incarnation, "state": AgentState.WORKING}))
    found = registry.get_agent("dev-1").performance_metrics
    assert (found.succeeded, found.failed, found.seconds >= 7.5) == (4, 2, True)


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_watch_yields_changes_as_they_happen(registry: AgentRecords) -> None:
    (early,) = enter(registry, agent("early"))
    changes = AgentRegistry().watch(deadline=time.monotonic() + 60)

    def see(*wanted: str) -> None:
        assert any((change.agent_id, change.what) == wanted for change in changes), f"not seen: {wanted}"

    (late,) = enter(registry, agent("late"))
    see("late", "came")
    registry.heartbeat(late.model_copy(update={"current_task": "t"}))
    see("late", "task")
    registry.heartbeat(early.model_copy(update={"state": AgentState.WAITING}))
    see("early", "state")
    see("early", "left")  # it sends no heartbeat any more
    registry.heartbeat(early.model_copy(update={"state": AgentState.WAITING}))
    see("early", "came")
    registry.leave(early)
    see("early", "left")


def test_an_idle_heartbeat_is_no_change(registry: AgentRecords, broker: Broker) -> None:
    (info,) = enter(registry, agent("dev-1"))
    before = broker.client.xlen(keys.AGENT_CHANGES)
    for _ in range(3):
        registry.heartbeat(info)
    assert broker.client.xlen(keys.AGENT_CHANGES) == before
    assert "performance_metrics" not in json.loads(broker.client.hget(keys.AGENT_REGISTRY, "dev-1"))


def test_whether_an_agent_serves_a_task_is_found_without_reading_them_all(
    registry: AgentRecords, torch: Torch, broker: Broker
) -> None:
    enter(registry, *(agent(f"qa-{number}", "qa", ("python",)) for number in range(60)))
    enter(registry, agent("d-limited", state=AgentState.LIMITED, skills=("go",)))
    asked: list[dict[str, Any]] = [{"role": "qa"}, {"role": "developer", "skills": ["go"]}, {"agent": "qa-7"}]
    served = [torch.enqueue("true", **asks) for asks in asked]
    alone = [torch.enqueue("true", **asks) for asks in ({"role": "qa", "skills": ["go"]}, {"agent": "qa-999"})]
    all_agents = sum(map(len, broker.client.hvals(keys.AGENT_REGISTRY)))
    before = int(broker.client.info("stats")["total_net_output_bytes"])
    unroutable = [task.record().unroutable for task in (*served, *alone)]
    sent = int(broker.client.info("stats")["total_net_output_bytes"]) - before
    assert sent < 2 * all_agents  # five readings of them all would be five times as much
    assert unroutable == [False] * 3 + [True] * 2


def test_of_many_dead_agents_only_those_with_waiting_tasks_are_looked_at(
    registry: AgentRecords, torch: Torch, broker: Broker
) -> None:
    dead = [f"dead-{number}" for number in range(300)]
    for agent_id in dead:
        registry.register(agent(agent_id))
    broker.client.zadd(keys.AGENT_HEARTBEAT, dict.fromkeys(dead, 1))
    broker.client.hset(keys.BROKER_STATE, "watch", 1)
    task = torch.enqueue("true", role="developer")
    queue = task.record().queue
    waits, meant = (list_of(name, task.record().spec.priority.step) for name in (queue, keys.agent_queue("dead-7")))
    broker.client.lmove(waits, meant)
    before = int(broker.client.info("stats")["total_reads_processed"])
    run_housekeeping(fleet())
    assert int(broker.client.info("stats")["total_reads_processed"]) - before < len(dead) / 2
    assert (broker.client.llen(waits), broker.client.llen(meant)) == (1, 0)
