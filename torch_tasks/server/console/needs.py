"""What waits for a person: the page with which the console begins."""

from __future__ import annotations

from typing import Any

from torch_tasks.server.console.page import ConsolePage, Visit


def gather(visit: Visit) -> dict[str, Any]:
    return {"needs": visit.ask_together("fleet.needs")}


NEEDS = ConsolePage("needs", "/", "Needs you", gather, in_menu=True)
