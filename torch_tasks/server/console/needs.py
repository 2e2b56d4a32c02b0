"""What waits for a person: the page with which the console begins."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from torch_tasks.errors import TorchError
from torch_tasks.orchestration.attention import Need
from torch_tasks.server.console.page import ConsolePage, Visit
from torch_tasks.server.console.paging import page_of
from torch_tasks.server.console.spawning import spawn_choices

_PER_PAGE = 25


def gather(visit: Visit) -> dict[str, Any]:
    found = visit.needed()
    shown = page_of(found, visit.query.get("page"), _PER_PAGE)
    return {
        "needed": len(found),
        "shown": shown,
        "tasks": visit.tasks(need.task for need in shown.items),
        "budgets": _budgets_of(visit, shown.items),
        "choices": spawn_choices(visit) if any(need.kind == "unroutable" for need in shown.items) else None,
    }


def _budgets_of(visit: Visit, found: Iterable[Need]) -> dict[str, list[Any]]:
    """How the accounts stand that these are about, by their names."""
    accounts = {need.account for need in found if need.account}
    with suppress(TorchError):
        return {
            account: [line for line in visit.ask_together("budget.list", account=account) if line.limit is not None]
            for account in accounts
        }
    return {}


NEEDS = ConsolePage("needs", "/", "Needs you", gather, in_menu=True)
