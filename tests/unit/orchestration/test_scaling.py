"""How many agents a pool should have."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from torch_tasks.model.agent import AgentInfo, AgentState, AgentStatus, Performance
from torch_tasks.model.fields import now
from torch_tasks.model.spawn import Pool
from torch_tasks.orchestration.scaling import (
    Backlog,
    GrowthDecision,
    Pace,
    PoolState,
    decide_growth,
    share_backlogs,
    unserved,
)

NOW = now()
PACE = Pace(wait_seconds=5, backlog_seconds=60, cooldown_seconds=30, task_seconds=60)
POOL = Pool(role="developer", min=1, max=5)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def agent(number: int = 1, *, busy: bool = False, **fields: object) -> AgentInfo:
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
        "current_task": "task" if busy else None,
        "started_at": ago(3600),
        "performance_metrics": Performance(succeeded=10, seconds=100.0),
    }
    return AgentInfo.model_validate({**known, **fields})


def backlog(waiting: int, oldest: float = 20.0, queue: str = "torch.developer.any") -> Backlog:
    return Backlog(queue=queue, waiting=waiting, oldest_seconds=oldest)


def decided(
    agents: list[AgentInfo], *backlogs: Backlog, size: int | None = None, starting: int = 0, grown: float | None = None
) -> GrowthDecision:
    state = PoolState(
        pool=POOL,
        size=len(agents) + starting if size is None else size,
        starting=starting,
        grown_at=None if grown is None else ago(grown),
    )
    return decide_growth(state, backlogs, agents, PACE, NOW)


def busy(count: int, **fields: object) -> list[AgentInfo]:
    return [agent(number, busy=True, **fields) for number in range(1, count + 1)]


def taking(seconds: float) -> Performance:
    return Performance(succeeded=1, seconds=seconds)


# ── growing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pool_below_its_least_grows_to_it_though_nothing_waits() -> None:
    assert decided([]).grow == 1


def test_a_pool_for_which_nothing_waits_stays() -> None:
    assert decided([agent()]).grow == 0


@pytest.mark.parametrize(("waiting", "grow"), [(1, 0), (6, 0), (7, 1), (12, 1), (24, 3), (500, 4)])
def test_it_grows_by_what_does_the_work_in_time_but_not_over_its_limit(waiting: int, grow: int) -> None:
    assert decided(busy(1), backlog(waiting)).grow == grow  # ten seconds each, so six a minute


def test_who_will_not_be_free_in_time_does_not_count() -> None:
    slow = busy(1, performance_metrics=taking(600.0))
    assert decided(slow, backlog(1)).grow == 1
    assert decided(slow, backlog(3)).grow == 3  # never more than there are tasks
    assert "at about 10 min each" in decided(slow, backlog(1)).why[0]


def test_one_more_comes_where_the_promise_is_broken_already() -> None:
    assert decided(busy(1), backlog(2, oldest=61)).grow == 1
    assert decided([agent()], backlog(2, oldest=61)).grow == 0


def test_who_is_free_or_starting_counts() -> None:
    slow = busy(1, performance_metrics=taking(600.0))
    assert decided([*slow, agent(2, performance_metrics=taking(600.0))], backlog(1)).grow == 0
    assert decided(slow, backlog(2), starting=1).grow == 1
    assert decided(slow, backlog(2), starting=2).grow == 0


def test_a_task_that_came_a_moment_ago_may_be_taken_by_who_is_there() -> None:
    decision = decided(busy(1), backlog(12, oldest=2))
    assert decision.grow == 0
    assert "less than 5 s" in decision.why[-1]


def test_where_nobody_is_able_nobody_is_waited_for() -> None:
    elsewhere = agent(1, role="qa", busy=True)
    state = PoolState(pool=POOL.model_copy(update={"min": 0}), grown_at=ago(1))
    assert decide_growth(state, [backlog(1, oldest=0)], [elsewhere], PACE, NOW).grow == 1


def test_it_rests_after_it_has_grown() -> None:
    assert decided(busy(2), backlog(100), grown=10).grow == 0
    assert decided(busy(2), backlog(100), grown=31).grow == 3


def test_an_agent_that_is_offline_does_nothing() -> None:
    away = agent(1, status=AgentStatus.OFFLINE)
    assert decided([away], backlog(6)).grow == 1


def test_how_long_a_task_takes_is_not_known_before_one_has_ended() -> None:
    unknown = busy(1, performance_metrics=Performance())
    assert "at about 1 min each" in decided(unknown, backlog(2)).why[0]


# ── which pool ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queue_belongs_to_the_least_skilled_pool_that_is_able() -> None:
    plain = Pool(role="developer", max=2)
    skilled = Pool(role="developer", skills=("python", "rust"), max=2)
    python, anybody = backlog(1, queue="torch.developer.python"), backlog(1, queue="torch.any.any")
    kind, qa = backlog(1, queue="torch.developer.claude"), backlog(1, queue="torch.qa.any")
    shares = share_backlogs([python, anybody, kind, qa], [skilled, plain])
    assert shares == {skilled.name: [python], plain.name: [anybody], None: [kind, qa]}
    assert unserved(shares[None], [agent(1, kind="claude")]) == ["torch.qa.any"]
