"""``SystemMonitor``: how well the fleet is, from Python."""

from __future__ import annotations

from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.monitoring.health import SystemHealth
from torch_tasks.operations import fleet
from torch_tasks.operations.operation import Nothing


class SystemMonitor:
    """Watches this process's fleet."""

    def __init__(self, *, link: Link | None = None) -> None:
        self._link = link or own_link()

    def get_system_health(self) -> SystemHealth:
        """The health of the system now; while the broker is away it is ``down``, with the reason."""
        return self._link.perform(fleet.health, Nothing())
