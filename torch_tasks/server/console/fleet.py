"""The machines of the fleet, and the agents on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from torch_tasks.errors import TorchError
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.hold import EVERYBODY, STOP, agent_scope, role_scope
from torch_tasks.model.node import KeptAgent, KeptState, NodeInfo
from torch_tasks.model.task import TaskRecord
from torch_tasks.server.console.page import ConsolePage, Visit
from torch_tasks.server.console.paging import page_of
from torch_tasks.server.console.spawning import spawn_choices

OFFLINE = "offline"
_FILTERS = ("role", "state", "node", "q")
_ASKED = ("pause", "retire")
"""What an address asks about one agent: whether that is meant, and how."""
_PER_PAGE = 100
_DAY_SECONDS, _REPORT_SECONDS = 86_400, 15.0
_DOWN = frozenset({KeptState.QUARANTINED, KeptState.RETIRED, KeptState.RETIRING})


@dataclass(frozen=True)
class AgentCard:
    """One agent, from all that is known of it."""

    id: str
    role: str
    kind: str
    node: str
    info: AgentInfo | None = None
    """Its entry in the registry; None if its program never came up."""
    kept: KeptAgent | None = None
    """How its worker stands with its node worker, if one keeps it."""
    task: TaskRecord | None = None
    tokens: int = 0
    """Today, by UTC."""

    @property
    def state(self) -> str:
        if self.kept and self.kept.state in _DOWN:
            return str(self.kept.state)
        if self.info and self.info.online:
            return str(self.info.state)
        return str(KeptState.RESTARTING) if self.kept and self.kept.state is KeptState.RESTARTING else OFFLINE

    @property
    def since(self) -> datetime | None:
        """Since when it works on its task, or has had nothing to do."""
        if self.task:
            return self.task.started_at or self.task.assigned_at
        return (self.info.performance_metrics.last_ended or self.info.started_at) if self.info else None

    @property
    def is_down(self) -> bool:
        """Whether its node leaves it down until it is released."""
        return self.kept is not None and self.kept.state in (KeptState.QUARANTINED, KeptState.RETIRED)

    @property
    def trouble(self) -> str:
        """Why it takes no task now; empty if it does."""
        if self.kept and self.kept.reason and self.kept.state is not KeptState.RUNNING:
            return self.kept.reason
        return self.info.hold_reason if self.info else ""

    def matches(self, role: str, state: str, node: str, words: Sequence[str]) -> bool:
        """Whether it is what is looked for; an empty text does not matter."""
        known = (self.id, self.role, self.kind, self.node, *(self.info.skills if self.info else ()))
        text = " ".join((*known, self.task.spec.title if self.task else "")).casefold()
        wanted = role in ("", self.role) and state in ("", self.state) and node in ("", self.node)
        return wanted and all(word in text for word in words)


def cards_of(
    agents: Iterable[AgentInfo],
    nodes: Iterable[NodeInfo],
    tasks: Mapping[str, TaskRecord],
    tokens: Mapping[str, int],
) -> list[AgentCard]:
    """Every agent that the registry or a node worker knows, by id."""
    known = {info.agent_id: info for info in agents}
    kept = {one.agent_id: (node, one) for node in nodes if node.online for one in node.agents}
    return [_card(name, known.get(name), kept.get(name), tasks, tokens) for name in sorted({*known, *kept})]


def _card(
    name: str,
    info: AgentInfo | None,
    kept: tuple[NodeInfo, KeptAgent] | None,
    tasks: Mapping[str, TaskRecord],
    tokens: Mapping[str, int],
) -> AgentCard:
    own = kept[1] if kept and (info is None or info.node == kept[0].name) else None
    shown: Any = info or own
    node = info.node if info else kept[0].name if kept else ""
    task = tasks.get(info.current_task or "") if info and info.online else None
    return AgentCard(name, shown.role, shown.kind, node, info, own, task, tokens.get(name, 0))


def gather(visit: Visit) -> dict[str, Any]:
    agents, nodes = visit.ask_together("agent.list"), visit.ask_together("node.list")
    tasks = visit.tasks(info.current_task for info in agents if info.online)
    cards = cards_of(agents, nodes, tasks, _tokens_today(visit))
    chosen = {name: visit.query.get(name, "").strip() for name in _FILTERS}
    words = chosen["q"].casefold().split()
    found = [card for card in cards if card.matches(chosen["role"], chosen["state"], chosen["node"], words)]
    shown = page_of(found, visit.query.get("page"), _PER_PAGE)
    kept = {name: value for name, value in chosen.items() if value}
    here = _query(kept | ({"page": str(shown.number)} if shown.number > 1 else {}))
    held = {one.scope: one for one in visit.ask_together("fleet.holds")}
    return {
        "nodes": [node for node in nodes if node.online or not node.left],
        "shown": shown,
        "address": f"{_query(kept)}page=",
        "plain": here.rstrip("?&"),
        "asking": here,
        "asked": {name: visit.query.get(name, "") for name in _ASKED},
        "chosen": chosen,
        "offered": {name: _offered(cards, name, chosen[name]) for name in ("role", "state", "node")},
        "counts": Counter(card.state for card in cards),
        "has_agents": bool(cards),
        "held": held,
        "stop": held.get(STOP),
        "wide": [one for one in held.values() if one.scope != STOP and not one.agent],
        "everybody": EVERYBODY,
        "agent_scope": agent_scope,
        "role_scope": role_scope,
        "choices": spawn_choices(visit),
        "spawned": _spawned(visit),
    }


def _query(given: Mapping[str, str]) -> str:
    """The address of the page with this, to which more can be added."""
    return f"/fleet?{urlencode(given)}{'&' if given else ''}"


def _tokens_today(visit: Visit) -> dict[str, int]:
    with suppress(TorchError):
        report = visit.ask_together("fleet.report", _REPORT_SECONDS, seconds=_DAY_SECONDS)
        return {one.name: one.tokens for one in report.spending_agents}
    return {}


def _offered(cards: Iterable[AgentCard], name: str, chosen: str) -> list[str]:
    """The values that there are, and the one that is chosen."""
    return sorted({*(getattr(card, name) for card in cards), *([chosen] if chosen else [])})


def _spawned(visit: Visit) -> dict[str, Any] | None:
    """What became of the request for an agent that the address names."""
    asked = visit.query.get("spawned")
    return {"outcome": visit.ask("agent.spawned", id=asked, seconds=0)} if asked else None


FLEET = ConsolePage("fleet", "/fleet", "Fleet", gather, in_menu=True)
