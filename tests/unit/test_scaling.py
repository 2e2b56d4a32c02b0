"""How many agents a pool should have."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from torch_tasks.models import AgentInfo, AgentState, AgentStatus, now
from torch_tasks.orchestration.scaling import Backlog, Decision, Pace, PoolState, decide, shared_out, unserved
from torch_tasks.performance import Performance
from torch_tasks.spawning import Pool

NOW = now()
PACE = Pace(wait_seconds=5, backlog_seconds=60, idle_seconds=300, cooldown_seconds=30, task_seconds=60)
POOL = Pool(role="developer", min=1, max=5)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def agent(number: int = 1, *, busy: bool = False, idle: float = 0.0, **fields: object) -> AgentInfo:
    """A developer of the pool, there since an hour."""
    known = {
        "agent_id": f"developer-{number}",
        "role": "developer",
        "kind": "shell",
        "node": "a",
        "pid": 1,
        "host": "a",
        "incarnation": 1,
        "workdir": "/",
        "tmux_socket": "/tmux",
        "status": AgentStatus.ACTIVE,
        "state": AgentState.WORKING if busy else AgentState.READY,
        "load": int(busy),
        "started_at": ago(3600),
        "performance_metrics": Performance(succeeded=10, seconds=100.0, last_ended=ago(idle)),
    }
    return AgentInfo.model_validate({**known, **fields})


def backlog(waiting: int, oldest: float = 20.0, queue: str = "torch.developer.any") -> Backlog:
    return Backlog(queue=queue, waiting=waiting, oldest_seconds=oldest)


def decided(agents: list[AgentInfo], *backlogs: Backlog, starting: int = 0, changed: float | None = None) -> Decision:
    changed_at = None if changed is None else ago(changed)
    state = PoolState(pool=POOL, agents=tuple(agents), starting=starting, changed_at=changed_at)
    return decide(state, backlogs, agents, PACE, NOW)


def busy(count: int) -> list[AgentInfo]:
    return [agent(number, busy=True) for number in range(1, count + 1)]


# ── growing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pool_below_its_least_grows_to_it_though_nothing_waits() -> None:
    assert decided([]).grow == 1


@pytest.mark.parametrize(("waiting", "grow"), [(1, 1), (6, 1), (7, 2), (12, 2), (24, 4), (500, 4)])
def test_it_grows_by_what_does_the_work_in_time_but_not_over_its_limit(waiting: int, grow: int) -> None:
    assert decided(busy(1), backlog(waiting)).grow == grow  # ten seconds each, so six a minute


def test_who_is_free_or_starting_counts() -> None:
    assert decided([agent(1)], backlog(6)).grow == 0
    assert decided(busy(1), backlog(12), starting=1).grow == 1
    assert decided(busy(1), backlog(12), starting=2).grow == 0


def test_a_task_that_came_a_moment_ago_may_be_taken_by_who_is_there() -> None:
    decision = decided(busy(1), backlog(6, oldest=2))
    assert decision.grow == 0
    assert "less than 5 s" in decision.why[-1]


def test_where_nobody_is_able_nobody_is_waited_for() -> None:
    elsewhere = agent(1, role="qa", busy=True)
    state = PoolState(pool=POOL.model_copy(update={"min": 0}), changed_at=ago(1))
    assert decide(state, [backlog(1, oldest=0)], [elsewhere], PACE, NOW).grow == 1


def test_it_rests_between_changes() -> None:
    assert decided(busy(2), backlog(100), changed=10).grow == 0
    assert decided(busy(2), backlog(100), changed=31).grow == 3


def test_an_agent_that_is_offline_does_nothing() -> None:
    away = agent(1, status=AgentStatus.OFFLINE)
    assert decided([away], backlog(6)).grow == 1


def test_how_long_a_task_takes_is_learned_from_all_of_the_role() -> None:
    slow = [agent(1, busy=True, performance_metrics=Performance(succeeded=1, seconds=120.0))]
    assert decided(slow, backlog(2)).grow == 2  # at most one agent for each task
    assert "about 120 s each" in decided(slow, backlog(2)).why[0]
    unknown = [agent(1, busy=True, performance_metrics=Performance())]
    assert "about 60 s each" in decided(unknown, backlog(2)).why[0]


# ── shrinking ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_who_was_idle_for_long_is_retired_longest_first_and_the_least_stays() -> None:
    agents = [agent(1, idle=400), agent(2, idle=900), agent(3, idle=10), agent(4, busy=True)]
    assert decided(agents).retire == ("developer-2", "developer-1")
    assert decided([agent(1, idle=400), agent(2, idle=900)]).retire == ("developer-2",)
    assert decided([agent(1, idle=900)]).retire == ()


def test_nobody_is_retired_while_something_waits_or_right_after_a_change() -> None:
    agents = [agent(1, idle=400), agent(2, idle=900)]
    assert decided(agents, backlog(1)).retire == ()
    assert decided(agents, changed=10).retire == ()


def test_a_new_agent_without_a_task_is_idle_since_it_started() -> None:
    fresh = agent(2, started_at=ago(100), performance_metrics=Performance())
    old = agent(3, started_at=ago(1000), performance_metrics=Performance())
    assert decided([agent(1, busy=True), fresh, old]).retire == ("developer-3",)


# ── which pool ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queue_belongs_to_the_least_skilled_pool_that_is_able() -> None:
    plain = Pool(role="developer", max=2)
    skilled = Pool(role="developer", skills=("python", "rust"), max=2)
    python, anybody = backlog(1, queue="torch.developer.python"), backlog(1, queue="torch.any.any")
    kind, qa = backlog(1, queue="torch.developer.claude"), backlog(1, queue="torch.qa.any")
    shares = shared_out([python, anybody, kind, qa], [skilled, plain])
    assert shares == {skilled.name: [python], plain.name: [anybody], None: [kind, qa]}
    assert unserved(shares, [agent(1, kind="claude")]) == ["torch.qa.any"]
