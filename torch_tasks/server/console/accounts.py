"""What each account with a provider of models has used, and what it costs."""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

from torch_tasks.model.budget import BudgetLine
from torch_tasks.model.report import FleetReport
from torch_tasks.orchestration.attention import NeedKind
from torch_tasks.server.console.page import ConsolePage, Visit

_DAY_SECONDS = 86_400.0
_DAYS = 7


class AccountShown(NamedTuple):
    """One account: its limits as they stand, and why it rests."""

    name: str
    lines: list[BudgetLine]
    rests: str
    """Empty if it does not."""


def gather(visit: Visit) -> dict[str, Any]:
    resting = {one.account: one.text for one in visit.ask_together("fleet.needs") if one.kind is NeedKind.LIMITED}
    lines = sorted(visit.ask_together("budget.list"), key=lambda line: line.account)
    report: FleetReport = visit.ask_together("fleet.report", seconds=_DAYS * _DAY_SECONDS)
    return {
        "accounts": [
            AccountShown(name, list(of_one), resting.get(name, ""))
            for name, of_one in groupby(lines, key=lambda line: line.account)
        ],
        "days": report.days,
        "spending": (
            ("account", report.accounts),
            ("role", report.spending_roles),
            ("agent", report.spending_agents),
        ),
        "since": report.since,
    }


ACCOUNTS = ConsolePage("accounts", "/accounts", "Accounts", gather, in_menu=True)
