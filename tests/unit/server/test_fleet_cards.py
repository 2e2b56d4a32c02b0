"""The cards of the fleet's page, from what the registry, the node workers and the tasks' records say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from torch_tasks.model.agent import AgentInfo, AgentState, AgentStatus, Performance
from torch_tasks.model.node import Capacity, KeptAgent, KeptState, NodeInfo
from torch_tasks.model.task import TaskRecord, TaskSpec, TaskState
from torch_tasks.server.console.fleet import AgentCard, cards_of

THEN = datetime(2026, 3, 1, 9, tzinfo=UTC)
ROOM = Capacity(cpus=2, load=0.5, memory_total=1 << 33, memory_free=1 << 32, panes=1, agents_limit=8)


def agent(name: str = "dev-1", *, online: bool = True, **fields: Any) -> AgentInfo:
    known: dict[str, Any] = {
        "role": "developer", "kind": "claude", "node": "a", "host": "a", "pid": 1, "incarnation": 1, "workdir": "/",
        "tmux_socket": "/t", "started_at": THEN, "state": AgentState.READY,
        "status": AgentStatus.ACTIVE if online else AgentStatus.OFFLINE,
    }  # fmt: skip
    return AgentInfo(agent_id=name, **known | fields)


def node(*kept: KeptAgent, name: str = "a", online: bool = True) -> NodeInfo:
    status = AgentStatus.ACTIVE if online else AgentStatus.OFFLINE
    return NodeInfo(
        name=name, host=name, pid=1, address=name, version="1", capacity=ROOM, state_dir="/s", started_at=THEN,
        agents=kept, status=status,
    )  # fmt: skip


def kept(state: KeptState, name: str = "dev-1", reason: str = "") -> KeptAgent:
    return KeptAgent(agent_id=name, role="developer", kind="claude", state=state, reason=reason)


def card(*args: Any, **how: Any) -> AgentCard:
    (only,) = cards_of(*args, how.get("tasks", {}), how.get("tokens", {}))
    return only


@pytest.mark.parametrize(
    ("infos", "nodes", "state", "is_down"),
    [
        ([agent()], [], "ready", False),
        ([agent(state=AgentState.WORKING)], [node(kept(KeptState.RUNNING))], "working", False),
        ([agent(online=False)], [], "offline", False),
        ([agent(online=False)], [node(kept(KeptState.RESTARTING))], "restarting", False),
        ([agent(online=False)], [node(kept(KeptState.QUARANTINED))], "quarantined", True),
        ([], [node(kept(KeptState.QUARANTINED))], "quarantined", True),
        ([], [node(kept(KeptState.RETIRED))], "retired", True),
        ([agent()], [node(kept(KeptState.RETIRING))], "retiring", False),
        ([agent()], [node(kept(KeptState.QUARANTINED), name="b")], "ready", False),
        ([agent(online=False)], [node(kept(KeptState.RESTARTING), online=False)], "offline", False),
    ],
)
def test_an_agents_state_is_that_of_its_program_unless_its_node_knows_better(
    infos: list[AgentInfo], nodes: list[NodeInfo], state: str, is_down: bool
) -> None:
    shown = card(infos, nodes)
    assert (shown.state, shown.is_down) == (state, is_down)


def test_an_agent_has_worked_on_its_task_since_it_began_or_idles_since_the_last_ended() -> None:
    record = TaskRecord(
        spec=TaskSpec(id="t1", prompt="paint the door"), state=TaskState.RUNNING, queue="torch.any.any",
        created_at=THEN, assigned_at=THEN + timedelta(minutes=1), started_at=THEN + timedelta(minutes=2),
    )  # fmt: skip
    busy = card([agent(current_task="t1")], [], tasks={"t1": record}, tokens={"dev-1": 1200})
    assert (busy.task, busy.since, busy.tokens) == (record, THEN + timedelta(minutes=2), 1200)
    assert card([agent(current_task="unknown")], []).task is None
    ended = Performance(succeeded=1, last_ended=THEN + timedelta(hours=1))
    assert card([agent(performance_metrics=ended)], []).since == THEN + timedelta(hours=1)
    assert card([agent()], []).since == THEN
    assert card([], [node(kept(KeptState.QUARANTINED, reason="it crashed"))]).since is None


def test_a_card_says_why_its_agent_takes_no_task() -> None:
    assert card([], [node(kept(KeptState.QUARANTINED, reason="it crashed"))]).trouble == "it crashed"
    assert card([agent(state=AgentState.LOGIN)], []).trouble.startswith("logged out")
    assert card([agent()], [node(kept(KeptState.RUNNING))]).trouble == ""


@pytest.mark.parametrize(
    ("role", "state", "at", "words", "matches"),
    [
        ("", "", "", [], True),
        ("developer", "ready", "a", [], True),
        ("qa", "", "", [], False),
        ("", "working", "", [], False),
        ("", "", "b", [], False),
        ("", "", "", ["dev", "claude"], True),
        ("", "", "", ["python"], True),
        ("", "", "", ["python", "sql"], False),
    ],
)
def test_cards_are_found_by_role_state_node_and_words(
    role: str, state: str, at: str, words: list[str], matches: bool
) -> None:
    assert card([agent(skills=("python",))], []).matches(role, state, at, words) is matches
