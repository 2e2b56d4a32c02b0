"""Temporary agents end by themselves: who has had nothing to do for a while, and is not looked at, retires."""

from __future__ import annotations

import time
from pathlib import Path

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import write_order
from torch_tasks.model.agent import AgentInfo, AgentSpec, AgentState, Lifetime, RetireOrder
from torch_tasks.workers.host.terminal import Terminal


class Idleness:
    """How long one agent has had nothing to do."""

    def __init__(self, spec: AgentSpec, fleet: Fleet) -> None:
        self._spec = spec
        self._fleet = fleet
        self._since = time.monotonic()

    def has_lasted(self, info: AgentInfo, terminal: Terminal, *, has_mail: bool) -> bool:
        """A temporary agent may go: nothing to do, nothing that waits for it, nobody who looks, for long enough."""
        if self._spec.lifetime is Lifetime.PERMANENT or info.retiring:
            return False
        if has_mail or info.state is not AgentState.READY or info.current_task or self._is_wanted(info, terminal):
            self._since = time.monotonic()
            return False
        return time.monotonic() - self._since >= self._fleet.settings.temporary_idle_seconds

    def restart(self) -> None:
        """It has something to do."""
        self._since = time.monotonic()

    def order(self, folder: Path) -> None:
        """Have it retire."""
        seconds = time.monotonic() - self._since
        write_order(folder, RetireOrder(by=self._spec.id, note=f"had nothing to do for {seconds:.0f} s"))

    def _is_wanted(self, info: AgentInfo, terminal: Terminal) -> bool:
        look = terminal.pane.look() if terminal.alive else None
        if look and look.attached:
            return True
        return bool(self._fleet.deliveries.waiting(keys.agent_queue(info.agent_id)))
