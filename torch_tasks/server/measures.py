"""The fleet as the server shows it to Prometheus, and what the server counts of its own requests."""

from __future__ import annotations

from collections.abc import Callable

from torch_tasks.fleet import fleet
from torch_tasks.model import metrics
from torch_tasks.monitoring.fleet_metrics import fleet_metrics
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.system.tally import tally

_LASTING = ("/events", "/mcp")
"""What ends so lasts as long as its client wants, which says nothing of the server."""


def fleet_measures() -> Callable[[], bytes]:
    """What Prometheus reads; :class:`NotAllowed` for a caller that may not look at the fleet."""
    readings = fleet_metrics(fleet)

    def text() -> bytes:
        require("fleet.metrics", Right.LOOK, Subject())
        return readings.text()

    return text


def count_request(path: str, status: int, seconds: float) -> None:
    tally().count(metrics.API_REQUESTS, status=str(status or "none"))
    if not path.endswith(_LASTING):
        tally().observe(metrics.API_SECONDS, seconds)
