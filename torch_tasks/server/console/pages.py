"""Every page of the console, in the order of its menu."""

from __future__ import annotations

from torch_tasks.server.console import fleet, needs
from torch_tasks.server.console.page import ConsolePage

PAGES: tuple[ConsolePage, ...] = (
    needs.NEEDS,
    fleet.FLEET,
)
