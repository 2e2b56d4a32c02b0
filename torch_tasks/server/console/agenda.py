"""Check-ins as an agenda: what comes up next, what came of each time, and changing it."""

from __future__ import annotations

from typing import Any

from cronsim import CronSim

from torch_tasks.checkins.times import AGAIN, ONCE
from torch_tasks.model.checkin import Busy, CheckinState, Cron, Misfire, Schedule
from torch_tasks.model.fields import now
from torch_tasks.server.console.page import NAMES_SECONDS, ConsolePage, Visit

_TIMES = f"{ONCE}; or, again and again, {AGAIN}"
_FIRES = 100
_BUSY = {
    Busy.IDLE: "it waits until that has ended",
    Busy.NOW: "it comes all the same",
    Busy.SKIP: "it is left out",
}
_MISFIRES = {
    Misfire.ONCE: "the latest comes, late",
    Misfire.SKIP: "they are left out",
    Misfire.ALL: "each comes, late",
}


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
        "times_of": times_of,
        "busy": _BUSY,
        "misfires": _MISFIRES,
    }


def times_of(schedule: Schedule) -> str:
    """When it comes up, for who does not read lines of cron."""
    if isinstance(schedule, Cron):
        return f"{CronSim(schedule.expression, now()).explain()}, {schedule.timezone}"
    return str(schedule)


AGENDA = ConsolePage("agenda", "/time", "Time", gather_agenda, in_menu=True)
CHECKIN = ConsolePage("checkin", "/time/{id}", "Check-in", gather_one, under="agenda")
