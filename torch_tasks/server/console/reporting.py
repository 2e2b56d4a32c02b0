"""How the fleet did: the report of ``torch-tasks report --html``, as a page of the console."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from torch_tasks.monitoring.report_page import contents
from torch_tasks.monitoring.report_words import title_of
from torch_tasks.server.console.page import ConsolePage, Visit

_DAY_SECONDS = 86_400.0
_DAYS = (1, 7, 30, 90)


def gather(visit: Visit) -> dict[str, Any]:
    asked = visit.query.get("days", "7")
    days = int(asked) if asked.isdecimal() and int(asked) in _DAYS else 7
    report = visit.ask_together("fleet.report", seconds=days * _DAY_SECONDS)
    shown = Markup(contents(report))  # noqa: S704 - every text in it is escaped
    return {"days": days, "offered": _DAYS, "heading": title_of(report), "contents": shown}


REPORT = ConsolePage("report", "/report", "Report", gather, news="", in_menu=True)
