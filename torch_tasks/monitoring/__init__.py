"""The health of the whole system.

>>> from torch_tasks.monitoring import SystemMonitor
>>> SystemMonitor().get_system_health().status  # doctest: +SKIP
"""

from __future__ import annotations

from torch_tasks.monitoring.system_monitor import SystemHealth, SystemMonitor

__all__ = ["SystemHealth", "SystemMonitor"]
