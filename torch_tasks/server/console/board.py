"""All tasks: by state, by what is looked for, page by page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from torch_tasks.model.task import ENDED, TaskState
from torch_tasks.server.console.page import ConsolePage, Visit

OPEN = "open"
"""Every state in which a task has not ended."""
_SOUGHT = {"q": "words", "role": "role", "agent": "agent", "trace": "trace"}
"""What the address says of the tasks that are looked for, and the field of the request that it is."""


def gather(visit: Visit) -> dict[str, Any]:
    sought = {name: visit.query.get(name, "") for name in _SOUGHT}
    state = visit.query.get("state", "")
    found = visit.ask_together(
        "task.board",
        states=[one for one in TaskState if not one.ended] if state == OPEN else [state] if state else [],
        before=visit.query.get("before") or None,
        **{_SOUGHT[name]: value for name, value in sought.items()},
    )
    counts = {"": sum(found.counts.values()), OPEN: sum(n for one, n in found.counts.items() if one not in ENDED)}
    counts |= {str(one): found.counts.get(one, 0) for one in TaskState}
    kept = {name: value for name, value in sought.items() if value}
    return {
        "board": found,
        "state": state,
        "sought": sought,
        "tabs": [(one or "all", address(kept | {"state": one}), one, n) for one, n in counts.items()],
        "all_of_it": address({}),
        "newest": address(kept | {"state": state}) if visit.query.get("before") else None,
        "older": address(kept | {"state": state, "before": found.older}) if found.older else None,
    }


def address(sought: dict[str, str]) -> str:
    """The address of the tasks that are looked for."""
    query = urlencode({name: value for name, value in sought.items() if value})
    return f"/tasks?{query}" if query else "/tasks"


BOARD = ConsolePage("board", "/tasks", "Tasks", gather, in_menu=True)
