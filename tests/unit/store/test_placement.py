"""On which node a spawned agent gets its place."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks.model.agent import AgentStatus
from torch_tasks.model.fields import now
from torch_tasks.model.node import Capacity, KeptAgent, KeptState, NodeInfo
from torch_tasks.model.spawn import Spawned, SpawnRequest, SpawnState
from torch_tasks.store.placement import MEBIBYTE, CountedAgent, FleetSnapshot, Place, PlacementLimits, Refusal, place

LIMITS = PlacementLimits(total=100, role=50, parent=10, memory=100 * MEBIBYTE)


def node(name: str = "node-a", *agents: KeptAgent, **more: Any) -> NodeInfo:
    has = {"cpus": 4, "load": 0.0, "memory_total": 1000, "memory_free": 1000, "panes": 0, "agents_limit": 10}
    has |= {field: more.pop(field) for field in list(more) if field in has}
    has |= {field: int(has[field] * MEBIBYTE) for field in ("memory_total", "memory_free")}
    fields = {"host": name, "pid": 1, "address": name, "version": "1", "state_dir": "/", "started_at": now()}
    return NodeInfo(
        name=name, capacity=Capacity(**has), agents=agents, **fields, **{"status": AgentStatus.ACTIVE, **more}
    )


def kept(agent_id: str, role: str = "qa", state: KeptState = KeptState.RUNNING) -> KeptAgent:
    return KeptAgent(agent_id=agent_id, role=role, kind="shell", state=state)


def spawned(agent_id: str, state: SpawnState = SpawnState.RESERVED, where: str = "node-a", **asked: Any) -> Spawned:
    request = SpawnRequest(**{"role": "qa", **asked})
    return Spawned(request=request, agent_id=agent_id, node=where, at=1, state=state)


def fleet(*nodes: NodeInfo, spawns: tuple[Spawned, ...] = (), **online: CountedAgent) -> FleetSnapshot:
    members = {name.replace("_", "-"): member for name, member in online.items()}
    return FleetSnapshot(nodes, spawns, members.keys(), members)


ASKED = SpawnRequest(role="qa")
LABELLED = SpawnRequest(role="qa", labels=("gpu",))


@pytest.mark.parametrize(
    ("there", "asked", "where"),
    [
        (fleet(node()), ASKED, "node-a"),
        (fleet(node("node-b"), node("node-a")), ASKED, "node-a"),
        (fleet(node("node-a", load=3.0), node("node-b")), ASKED, "node-b"),
        (fleet(node("node-a", memory_free=300), node("node-b", memory_free=800)), ASKED, "node-b"),
        (fleet(node("node-a", load=0.01), node("node-b", load=0.02)), ASKED, "node-a"),
        (fleet(node("node-a"), node("node-b"), dev_1=CountedAgent("dev", "node-a")), ASKED, "node-b"),
        (fleet(node("node-a", kept("x")), node("node-b")), ASKED, "node-b"),
        (fleet(node("node-a"), node("node-b"), spawns=(spawned("x"),)), ASKED, "node-b"),
        (fleet(node("node-a", drained=True), node("node-b", load=3.9)), ASKED, "node-b"),
        (fleet(node("node-a"), node("node-b", load=3.9, labels=("gpu",))), LABELLED, "node-b"),
        (fleet(node("node-a"), node("node-b", load=3.9)), SpawnRequest(role="qa", node="node-b"), "node-b"),
    ],
)
def test_the_node_with_most_room_is_chosen(there: FleetSnapshot, asked: SpawnRequest, where: str) -> None:
    chosen = place(asked, there, LIMITS)
    assert isinstance(chosen, Place)
    assert chosen.node == where


@pytest.mark.parametrize(
    ("there", "asked", "reasons"),
    [
        (fleet(), ASKED, ""),
        (fleet(node()), SpawnRequest(role="qa", node="node-b"), ""),
        (
            fleet(node(status=AgentStatus.OFFLINE), node("node-b", drained=True)),
            ASKED,
            "node-a offline; node-b drained",
        ),
        (fleet(node(labels=("fast",))), LABELLED, "node-a lacks the label gpu"),
        (
            fleet(node(agents_limit=1), qa_1=CountedAgent("qa", "node-a")),
            ASKED,
            "node-a has 1 agents, TORCH_AGENTS_PER_NODE is 1 there",
        ),
        (
            fleet(node(memory_free=150), spawns=(spawned("x"),)),
            ASKED,
            "node-a has 50 MB of memory free, TORCH_AGENT_MEMORY_BYTES asks for 100 MB",
        ),
    ],
)
def test_a_refusal_names_why_each_node_has_no_place(there: FleetSnapshot, asked: SpawnRequest, reasons: str) -> None:
    refusal = place(asked, there, LIMITS)
    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.reasons) == ("nowhere", reasons)


@pytest.mark.parametrize(
    ("there", "asked", "limits", "refusal"),
    [
        (fleet(node(), qa_1=CountedAgent("qa", "gone")), ASKED, {"total": 1}, Refusal("total", "", 1, 1)),
        (fleet(node(), qa_1=CountedAgent("qa", "gone")), ASKED, {"role": 1}, Refusal("role", "qa", 1, 1)),
        (fleet(node(), dev_1=CountedAgent("dev", "gone")), ASKED, {"role": 1}, None),
        (
            fleet(node(), dev_1=CountedAgent("dev", "gone", "pm-1")),
            SpawnRequest(role="qa", parent="pm-1"),
            {"parent": 1},
            Refusal("parent", "pm-1", 1, 1),
        ),
        (
            fleet(node(), spawns=(spawned("x", pool="p"), spawned("y", SpawnState.FAILED, pool="p"))),
            SpawnRequest(role="qa", pool="p"),
            {"pool": 1},
            Refusal("pool", "p", 1, 1),
        ),
        (
            fleet(node(), qa_1=CountedAgent("qa", "x")),
            SpawnRequest(role="qa", agent_id="qa-1"),
            {},
            Refusal("id", "qa-1"),
        ),
        (fleet(node("node-a", kept("x", state=KeptState.RETIRED))), ASKED, {"role": 1}, None),
        (fleet(node("node-a", kept("x", state=KeptState.QUARANTINED))), ASKED, {"role": 1}, None),
        (fleet(node("node-b", kept("x"), status=AgentStatus.OFFLINE), node()), ASKED, {"role": 1}, None),
        (fleet(node(), spawns=(spawned("x", SpawnState.READY),)), ASKED, {"role": 1}, None),
        (fleet(node(), spawns=(spawned("x", SpawnState.LOST),)), ASKED, {"role": 1}, None),
    ],
)
def test_a_limit_counts_online_agents_and_reserved_places(
    there: FleetSnapshot, asked: SpawnRequest, limits: dict[str, int], refusal: Refusal | None
) -> None:
    chosen = place(asked, there, LIMITS._replace(**limits))
    assert chosen == refusal if refusal else isinstance(chosen, Place)


@pytest.mark.parametrize(
    ("there", "agent_id"),
    [
        (fleet(node()), "qa-1"),
        (fleet(node(), qa_1=CountedAgent("qa", "node-a"), qa_3=CountedAgent("qa", "node-a")), "qa-2"),
        (fleet(node("node-a", kept("qa-1", state=KeptState.RETIRED))), "qa-2"),
        (fleet(node(), spawns=(spawned("qa-1", SpawnState.LOST), spawned("qa-2", SpawnState.FAILED))), "qa-2"),
    ],
)
def test_the_first_free_id_is_given_out(there: FleetSnapshot, agent_id: str) -> None:
    chosen = place(ASKED, there, LIMITS)
    assert isinstance(chosen, Place)
    assert chosen.agent_id == agent_id
