"""The report: days added up, trends, capacity; and the daily numbers that each machine keeps for it."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from torch_tasks.cli.report import print_report
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentInfo, AgentStatus
from torch_tasks.model.metrics import Metric
from torch_tasks.model.node import KeptAgent, KeptState
from torch_tasks.model.report import FleetReport, report_of
from torch_tasks.model.rollup import AgentDay, NodeDay, Stretch, count_key
from torch_tasks.monitoring.report_page import _round_top, page
from torch_tasks.monitoring.report_words import as_markdown
from torch_tasks.monitoring.rollups import MachineRollups, _by_day
from torch_tasks.settings import Settings
from torch_tasks.state_folder import TALLY
from torch_tasks.store.rollups import KEPT_DAYS, RollupBook, RollupPlace
from torch_tasks.system.tally import Tally

TODAY = date(2026, 11, 29)
DAY = 86_400.0


def day(ago: int, node: str = "node-a", **more: Any) -> NodeDay:
    return NodeDay(node=node, day=TODAY - timedelta(days=ago), **more)


def counts(*rows: tuple[str, Metric, tuple[str, ...], list[float]]) -> dict[str, list[float]]:
    return {count_key(agent, metric.name, labels): numbers for agent, metric, labels, numbers in rows}


def ended(number: float, end: str, agent: str = "dev-1") -> tuple[str, Metric, tuple[str, ...], list[float]]:
    return agent, metrics.TASKS_ENDED, ("developer", "claude", end), [number]


def report(*days: NodeDay, since: int = 6) -> FleetReport:
    return report_of(days, TODAY - timedelta(days=since), TODAY)


def test_tasks_of_all_machines_are_added_up_and_compared_with_the_time_before() -> None:
    found = report(
        day(0, counts=counts(ended(18, "succeeded"), ended(2, "failed"), ended(5, "cancelled"))),
        day(3, "node-b", counts=counts(ended(2, "succeeded"))),
        day(7, counts=counts(ended(4, "succeeded"), ended(4, "failed"))),
        day(14, counts=counts(ended(100, "succeeded"))),
    )
    assert (found.succeeded, found.failed, found.cancelled) == (20, 2, 5)
    assert found.completion == pytest.approx(20 / 22)
    trends = {trend.name: (trend.now, trend.before) for trend in found.trends}
    assert trends["tasks that succeeded"] == (20, 4)
    assert trends["completion"] == (found.completion, 0.5)
    assert [line.succeeded for line in found.days] == [0, 0, 0, 2, 0, 0, 18]


def test_uptime_counts_declared_time_only() -> None:
    half = AgentDay(role="qa", declared=1000, up=500, busy=250, waiting=30)
    whole = AgentDay(role="qa", declared=3000, up=3000)
    found = report(day(0, itself=Stretch(declared=100, up=99), agents={"qa-1": half, "qa-2": whole}))
    assert [(one.name, one.up, one.busy) for one in found.agents] == [("qa-1", 0.5, 0.5), ("qa-2", 1.0, 0.0)]
    assert [(one.name, one.up, one.waiting_seconds) for one in found.roles] == [("qa", 3500 / 4000, 30)]
    assert found.nodes[0].up == pytest.approx(0.99)


def test_the_goals_are_met_or_not_or_nothing_was_measured() -> None:
    nearly = AgentDay(role="qa", declared=1000, up=994)
    found = report(
        day(0, agents={"qa-1": nearly}, recoveries={"agent": [10.0, 29.0, 90.0]}, counts=counts(ended(1, "succeeded")))
    )
    goals = {goal.name: (goal.value, goal.is_met) for goal in found.goals}
    assert goals == {
        "uptime of agents": (0.994, False),
        "completion": (1.0, True),
        "message delivered, median": (None, None),
        "recovery, median": (29.0, True),
    }


@pytest.mark.parametrize(("highest", "top"), [(113, 200), (0.66, 1), (400, 400), (401, 600), (7, 10), (0.05, 0.06)])
def test_a_scale_ends_at_a_round_number(highest: float, top: float) -> None:
    assert _round_top(highest) == pytest.approx(top)


def test_times_are_read_from_the_buckets() -> None:
    bounds = metrics.MESSAGE_SECONDS.bounds
    fast = [0.0, *([100.0] * (len(bounds) - 1)), 100.0, 0.8]  # all within the second bucket
    spread = report(day(0, counts=counts(("dev-1", metrics.MESSAGE_SECONDS, ("developer",), fast)))).spreads[0]
    assert spread.count == 100
    assert spread.p50 == pytest.approx((bounds[0] + bounds[1]) / 2)
    slow = [0.0] * len(bounds) + [10.0, 9000.0]
    spread = report(day(0, counts=counts(("dev-1", metrics.MESSAGE_SECONDS, ("developer",), slow)))).spreads[0]
    assert spread.p99 == bounds[-1]


def test_cost_is_told_by_account_role_and_agent() -> None:
    found = report(
        day(
            0,
            counts=counts(
                ("dev-1", metrics.COST, ("claude", "developer"), [1.5]),
                ("dev-1", metrics.TOKENS, ("claude", "developer", "input"), [1000.0]),
                ("qa-1", metrics.COST, ("claude", "qa"), [0.5]),
                ("qa-1", metrics.TOKENS, ("openai", "qa", "output"), [10.0]),
            ),
        )
    )
    assert (found.cost_usd, found.tokens) == (2.0, 1010)
    assert [(one.name, one.tokens, one.cost_usd) for one in found.accounts] == [
        ("claude", 1000, 2.0),
        ("openai", 10, 0),
    ]
    assert [one.name for one in found.spending_agents] == ["dev-1", "qa-1"]


def test_a_model_without_a_price_is_named() -> None:
    rows = [(agent, metrics.UNPRICED, ("new-model",), [1500.0]) for agent in ("dev-1", "qa-1")]
    found = report(day(0, counts=counts(*rows, ("qa-1", metrics.UNPRICED, ("other-model",), [7.0]))))
    assert [(one.name, one.tokens) for one in found.unpriced] == [("new-model", 3000), ("other-model", 7)]
    assert "and 3,007 tokens without a price" in page(found)
    told = report(day(0, itself=Stretch(declared=1, up=1), counts=counts(*rows)))
    assert "<td>new-model</td><td>3,000</td>" in page(told)


def test_faults_have_their_times() -> None:
    found = report(day(0, recoveries={"agent": [2.0, 4.0, 12.0]}), day(1, "node-b", recoveries={"agent": [6.0]}))
    assert [tuple(one.model_dump().values()) for one in found.recoveries] == [("agent", 4, 5.0, 12.0)]


def test_what_grows_fastest_is_full_first() -> None:
    def peaks(ago: int) -> Mapping[str, Mapping[str, float]]:
        return {
            "disk": {"used": 100 - 10 * ago, "limit": 200},
            "memory": {"used": 150, "limit": 200},
            "broker connections": {"used": 70, "limit": 700},
            "broker memory": {"used": 10, "limit": 0},
        }

    ten = {f"dev-{number}": AgentDay(role="developer", declared=DAY, up=DAY, busy=DAY / 2) for number in range(10)}
    found = report(*(day(ago, peaks=peaks(ago), agents=ten) for ago in range(4)))
    rooms = {room.name: room for room in found.rooms}
    assert found.rooms[0].name == "disk of node-a"
    assert rooms["disk of node-a"].days_left == pytest.approx(10)
    assert rooms["memory of node-a"].agents_left == 3  # 50 left, 15 each
    assert rooms["broker connections"].agents_left == 90  # 7 each
    assert rooms["time of agents: developer"].share == pytest.approx(0.5)
    assert "broker memory" not in rooms
    assert report(day(0, peaks=peaks(0))).rooms[0].growth_a_day is None


def test_the_report_is_shown_as_text_markdown_and_a_page_that_needs_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    busy = {"<dev>": AgentDay(role="developer", declared=DAY, up=DAY / 2)}
    found = report(day(0, itself=Stretch(declared=DAY, up=DAY), agents=busy, counts=counts(ended(3, "succeeded"))))
    print_report(found)
    printed = capsys.readouterr().out
    assert "3 tasks succeeded" in printed.splitlines()[0]
    assert any(line.startswith("<dev>") and "50.00%" in line for line in printed.splitlines())
    assert "| node | up | declared for |" in "\n".join(as_markdown(found))
    text = page(found)
    assert "&lt;dev&gt;" in text
    assert "<dev>" not in text
    assert "no record" in text  # of the six days before
    assert "<td>50.00%</td><td>at least 99.50%</td><td class=unmet>not met</td>" in text
    assert not re.search(r"https?://|<script|@import|url\(", text)
    charts = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text)]
    assert len(charts) == 6
    assert all(len(chart.findall("rect")) == 14 for chart in charts)


def test_an_empty_report_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report())
    for text in (capsys.readouterr().out, "\n".join(as_markdown(report())), page(report())):
        assert "Nothing was recorded" in text


# ── the daily numbers ────────────────────────────────────────────────────────────────────────────────────────────────

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()


class Broker:
    """What a look asks of the fleet."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(state_dir=folder, node="node-a", signing="off")
        self.registry = self.rollups = self.client = self
        self.away = False
        self.online = True
        self.started = NOW - 3600
        self.put_there: dict[str, str] = {}

    def get_agents(self, ids: Sequence[str]) -> list[AgentInfo]:
        if self.away:
            raise BrokerUnreachable("away")
        return [self.agent(one) for one in ids]

    def agent(self, agent_id: str) -> AgentInfo:
        return AgentInfo(
            agent_id=agent_id,
            role="qa",
            kind="shell",
            node="node-a",
            pid=1,
            host="a",
            incarnation=1,
            workdir="/",
            tmux_socket="",
            status=AgentStatus.ACTIVE if self.online else AgentStatus.OFFLINE,
            current_task="t1",
            started_at=datetime.fromtimestamp(self.started, UTC),
            last_heartbeat=datetime.fromtimestamp(NOW, UTC),
        )

    def info(self) -> dict[str, int]:
        return {"connected_clients": 9, "maxclients": 100, "used_memory": 5, "maxmemory": 0}

    def put(self, node: str, today: dict[str, str], book: RollupBook) -> None:
        self.put_there |= today


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path)


def machine(broker: Broker) -> MachineRollups:
    """A node worker that keeps one agent."""
    kept = KeptAgent(agent_id="qa-1", role="qa", kind="shell", parent=None, state=KeptState.RUNNING, reason="")
    return MachineRollups(broker, lambda: [kept])  # type: ignore[arg-type]


def kept_day(broker: Broker, day: date = TODAY) -> NodeDay:
    return RollupBook(broker.settings.state.rollups).day("node-a", day)


def test_an_agent_is_up_while_its_heartbeats_come(broker: Broker) -> None:
    looks = machine(broker)
    for seconds, online in ((0, True), (10, True), (20, False), (35, False), (50, True)):
        broker.online = online
        looks.look(NOW + seconds)
    agent = kept_day(broker).agents["qa-1"]
    assert (agent.declared, agent.up, agent.busy) == (50, 25, 25)
    assert kept_day(broker).recoveries == {"agent": [50.0]}
    assert broker.put_there


def test_without_a_broker_nobody_is_reached_and_its_return_is_a_recovery(broker: Broker) -> None:
    looks = machine(broker)
    for seconds, away in ((0, False), (10, True), (40, True), (50, False)):
        broker.away = away
        looks.look(NOW + seconds)
    assert kept_day(broker).agents["qa-1"].up == 10
    assert kept_day(broker).recoveries == {"broker": [40.0]}


def test_a_machine_that_was_killed_was_not_up_and_one_that_ended_in_order_was_not_expected(broker: Broker) -> None:
    machine(broker).look(NOW)
    broker.started = NOW + 500  # the machine's agents began anew, too
    machine(broker).look(NOW + 600)
    assert (kept_day(broker).itself.declared, kept_day(broker).itself.up) == (600, 0)
    assert kept_day(broker).agents["qa-1"].up == 0
    assert kept_day(broker).recoveries == {"node": [600.0]}
    looks = machine(broker)  # killed again, and back at once
    looks.look(NOW + 603)
    assert kept_day(broker).itself.up == 0
    assert kept_day(broker).recoveries == {"node": [600.0, 3.0]}
    looks.look(NOW + 605)
    assert kept_day(broker).itself.up == 2
    machine(broker).look(NOW + 610, ends=True)
    machine(broker).look(NOW + 5000)
    assert kept_day(broker).itself.declared == 610


def test_an_agent_that_outlived_its_node_worker_was_up(broker: Broker) -> None:
    machine(broker).look(NOW)
    machine(broker).look(NOW + 600)
    assert kept_day(broker).agents["qa-1"].up == 600


def test_counts_are_taken_once_whoever_looks(broker: Broker, tmp_path: Path) -> None:
    folder = tmp_path / "agents" / "qa-1"
    folder.mkdir(parents=True)
    tally = Tally()
    tally.keep_in(folder / TALLY)
    machine(broker).look(NOW)
    tally.count(metrics.COST, 0.5, account="claude", role="qa")
    tally.count(metrics.DESK_REQUESTS, outcome="served")
    machine(broker).look(NOW + 1)
    tally.count(metrics.COST, 0.25, account="claude", role="qa")
    machine(broker).look(NOW + 2)
    machine(broker).look(NOW + 3)
    assert [(one.agent, one.metric, one.numbers) for one in kept_day(broker).counted()] == [
        ("qa-1", metrics.COST.name, [0.75])
    ]
    (folder / TALLY).unlink()
    machine(broker).look(NOW + 4)
    other = Tally()
    other.keep_in(folder / TALLY)
    other.count(metrics.COST, 0.25, account="claude", role="qa")
    machine(broker).look(NOW + 5)
    assert kept_day(broker).counts[count_key("qa-1", metrics.COST.name, ("claude", "qa"))] == [1.0]


def test_a_time_is_divided_among_its_days() -> None:
    midnight = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
    assert list(_by_day(midnight - 5, midnight + DAY + 7)) == [
        (TODAY, 5.0),
        (TODAY + timedelta(days=1), DAY),
        (TODAY + timedelta(days=2), 7.0),
    ]
    assert list(_by_day(midnight, midnight)) == [(TODAY + timedelta(days=1), 0.0)]


def test_a_month_of_fifty_agents_is_a_few_megabytes_and_old_days_go(tmp_path: Path) -> None:
    book = RollupBook(tmp_path / "rollups.sqlite")
    rows = [
        (f"dev-{number}", metric, tuple("claude-account" for _ in metric.labels), [12345.0] * (len(metric.bounds) + 2))
        for number in range(50)
        for metric in (metrics.TASK_RUN_SECONDS, metrics.MESSAGE_SECONDS, metrics.TASK_QUEUE_SECONDS)
    ]
    agents = {f"dev-{number}": AgentDay(role="developer", declared=DAY, up=DAY) for number in range(50)}
    days = [day(ago, counts=counts(*rows), agents=agents) for ago in range(30)]
    book.write(RollupPlace(until=time.time()), days)
    assert (tmp_path / "rollups.sqlite").stat().st_size < 5_000_000
    book.write(RollupPlace(), [NodeDay(node="node-a", day=TODAY + timedelta(days=ahead)) for ahead in range(KEPT_DAYS)])
    assert len(book.texts()) == KEPT_DAYS
