"""The machines of the fleet, and the agents on them."""

from __future__ import annotations

from typing import Any

from torch_tasks.server.console.page import ConsolePage, Visit


def gather(visit: Visit) -> dict[str, Any]:
    return {"agents": visit.ask_together("agent.list"), "nodes": visit.ask_together("node.list")}


FLEET = ConsolePage("fleet", "/fleet", "Fleet", gather, in_menu=True)
