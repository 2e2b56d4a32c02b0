"""Check-ins as an agenda: what comes up next, what came of each time, and changing it."""

from __future__ import annotations

from typing import Any

from torch_tasks.checkins.times import AGAIN, ONCE
from torch_tasks.model.checkin import Busy, CheckinState, Misfire
from torch_tasks.server.console.page import NAMES_SECONDS, ConsolePage, Visit

_TIMES = f"{ONCE}; or, again and again, {AGAIN}"
_FIRES = 100


def gather_agenda(visit: Visit) -> dict[str, Any]:
    known = visit.ask_together("checkin.list")
    return {
        "coming": [one for one in known if one.state is not CheckinState.ENDED],
        "ended": [one for one in known if one.state is CheckinState.ENDED],
        "lacks": visit.ask_together("checkin.readiness").lacks,
        **_form(visit),
    }


def gather_one(visit: Visit) -> dict[str, Any]:
    name = visit.path["id"]
    return {
        "record": visit.ask("checkin.get", checkin_id=name),
        "fires": visit.ask("checkin.history", checkin_id=name, limit=_FIRES),
        **_form(visit),
    }


def _form(visit: Visit) -> dict[str, Any]:
    """What the forms offer to choose from."""
    agents = visit.ask_together("agent.list", NAMES_SECONDS)
    return {
        "agents": [one.agent_id for one in agents],
        "roles": sorted({one.role for one in agents}),
        "times": _TIMES,
        "busy": list(Busy),
        "misfires": list(Misfire),
    }


AGENDA = ConsolePage("agenda", "/time", "Time", gather_agenda, in_menu=True)
CHECKIN = ConsolePage("checkin", "/time/{id}", "Check-in", gather_one)
