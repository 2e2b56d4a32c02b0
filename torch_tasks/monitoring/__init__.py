"""The health of the whole system.

>>> from torch_tasks.monitoring import SystemMonitor
>>> SystemMonitor().get_system_health().status  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch_tasks.started_by_name import SYSTEM_MONITOR, load

if TYPE_CHECKING:
    from torch_tasks.facades.health import SystemMonitor
    from torch_tasks.monitoring.health import SystemHealth

__all__ = ["SystemHealth", "SystemMonitor"]


def __getattr__(name: str) -> Any:
    if name == "SystemMonitor":
        return load(SYSTEM_MONITOR)
    if name == "SystemHealth":
        from torch_tasks.monitoring.health import SystemHealth

        return SystemHealth
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
