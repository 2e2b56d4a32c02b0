"""One agent: its terminal, what it does, what waits for it, and what a person may do about it."""

from __future__ import annotations

from typing import Any

from torch_tasks.caller import caller
from torch_tasks.errors import InvalidRequest, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.checkin import CheckinRecord
from torch_tasks.model.node import KeptAgent, NodeInfo
from torch_tasks.security.rights import Right
from torch_tasks.server.console.page import ConsolePage, Visit
from torch_tasks.server.console.pane_rows import row_html

_TASKS_SHOWN, _STEPS_SHOWN = 12, 20
_KEYS = (
    ("Escape", "Esc"),
    ("Tab", "Tab"),
    ("Up", "↑"),
    ("Down", "↓"),
    ("Enter", "Enter"),
    ("C-c", "Ctrl-C"),
)
"""What a phone has no key for."""
_SIGNS = 3
"""So many signs of a person's window may get lost before Torch takes the terminal back."""
_ABOVE = 400
"""So many rows of what has left the screen are on one page."""


def gather(visit: Visit) -> dict[str, Any]:
    agent_id = visit.path["agent_id"]
    info = visit.ask("agent.get", agent_id=agent_id)
    can_read = visit.may("message.inbox", party=agent_id)
    tasks = visit.ask_together("task.board", agent=agent_id, limit=_TASKS_SHOWN).rows
    return {
        "agent": info,
        "kept": _kept(visit, info),
        "can_watch": visit.may("agent.screen", agent=agent_id),
        "can_type": visit.may("agent.take_over", agent=agent_id),
        "is_mine": info.taken_over == caller().name,
        "away_seconds": fleet().settings.person_away_seconds,
        "stay_seconds": fleet().settings.person_away_seconds / _SIGNS,
        "keys": _KEYS,
        "can_send": visit.may("message.send"),
        "can_read": can_read,
        "inbox": visit.ask("message.inbox", party=agent_id) if can_read else [],
        "tasks": tasks,
        "titles": {one.id: one.title for one in tasks},
        "steps": visit.ask_together("agent.lately", agent_id=agent_id, limit=_STEPS_SHOWN),
        "checkins": [one for one in visit.ask_together("checkin.list") if _is_for(one, info)],
        "evidence": _evidence(visit, agent_id) if "explain" in visit.query else None,
    }


def _kept(visit: Visit, info: AgentInfo) -> KeptAgent | None:
    """What its node says of it, if that keeps it alive."""
    nodes: list[NodeInfo] = visit.ask_together("node.list")
    return next(
        (kept for node in nodes if node.name == info.node for kept in node.agents if kept.agent_id == info.agent_id),
        None,
    )


def _is_for(record: CheckinRecord, info: AgentInfo) -> bool:
    target = record.checkin.target
    return target.agent == info.agent_id or target.role == info.role or target.receiver == info.agent_id


def _evidence(visit: Visit, agent_id: str) -> Any:
    """What its worker says of its state, or why it says nothing."""
    try:
        return visit.ask("agent.explain", agent_id=agent_id)
    except TorchError as error:
        return [{"source": "nothing", "evidence": str(error)}]


def gather_above(visit: Visit) -> dict[str, Any]:
    agent_id, skipped = visit.path["agent_id"], _number(visit.query.get("skipped", "0"))
    screen = visit.ask("agent.scrollback", agent_id=agent_id, lines=_ABOVE, skipped=skipped)
    return {
        "agent_id": agent_id,
        "rows": [row_html(row) for row in screen.rows],
        "older": skipped + _ABOVE if len(screen.rows) == _ABOVE else None,
        "newer": max(0, skipped - _ABOVE) if skipped else None,
    }


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InvalidRequest(f"{text[:20]!r} is no number of rows")
    return int(text)


AGENT = ConsolePage("agent", "/agents/{agent_id}", "Agent", gather, under="fleet")
ABOVE = ConsolePage(
    "above", "/agents/{agent_id}/above", "Above the screen", gather_above, Right.WATCH, news="", under="fleet"
)
