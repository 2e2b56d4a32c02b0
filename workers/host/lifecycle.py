"""The phases of one agent's host, and when a temporary agent has been idle for long enough to retire."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import write_retire_order
from torch_tasks.model.agent import AgentInfo, AgentSpec, AgentState, Lifetime, RetireOrder
from torch_tasks.workers.host.terminal import Terminal


class HostPhase(StrEnum):
    """How far a host is in its life; it never goes back."""

    OPENING = "opening"
    """It takes the agent's place, and starts or adopts its program."""
    SERVING = "serving"
    """It does tasks and delivers messages."""
    RETIRING = "retiring"
    """It begins no other task, and leaves once it has none."""
    LEAVING = "leaving"
    """The worker stops; the pane and the task in it go on for the next worker."""
    CLOSED = "closed"
    """The agent's place is free."""


PHASES: dict[HostPhase, frozenset[HostPhase]] = {
    HostPhase.OPENING: frozenset({HostPhase.SERVING, HostPhase.LEAVING}),
    HostPhase.SERVING: frozenset({HostPhase.RETIRING, HostPhase.LEAVING}),
    HostPhase.RETIRING: frozenset({HostPhase.LEAVING}),
    HostPhase.LEAVING: frozenset({HostPhase.CLOSED}),
    HostPhase.CLOSED: frozenset(),
}
"""Which phase may follow which."""


class Lifecycle:
    """The phase of one host. Threads and signal handlers move it on, so it needs no lock."""

    def __init__(self) -> None:
        self._reached = [HostPhase.OPENING]

    @property
    def phase(self) -> HostPhase:
        """The furthest phase that was reached."""
        return max(self._reached, key=list(HostPhase).index)

    @property
    def is_retiring(self) -> bool:
        """The agent begins no other task."""
        return HostPhase.RETIRING in self._reached

    @property
    def is_leaving(self) -> bool:
        """The worker is about to stop, or has."""
        return HostPhase.LEAVING in self._reached

    def move_to(self, phase: HostPhase) -> bool:
        """Go on to this phase; false if the host is not at one that it follows."""
        # Appended, not assigned: of two that move it at the same moment, the one that goes further counts.
        if phase not in PHASES[self.phase]:
            return False
        self._reached.append(phase)
        return True


class IdleTimer:
    """How long a temporary agent has been idle."""

    def __init__(self, spec: AgentSpec, fleet: Fleet) -> None:
        self._spec = spec
        self._fleet = fleet
        self._since = time.monotonic()

    def is_over(self, info: AgentInfo, terminal: Terminal, *, has_messages: bool) -> bool:
        """The agent is temporary, and for long enough no work waited for it and no person was attached to its pane."""
        if self._spec.lifetime is Lifetime.PERMANENT or info.retiring:
            return False
        if has_messages or info.state is not AgentState.READY or info.current_task or self._is_wanted(info, terminal):
            self.restart()
            return False
        return time.monotonic() - self._since >= self._fleet.settings.temporary_idle_seconds

    def restart(self) -> None:
        self._since = time.monotonic()

    def order_retirement(self, folder: Path) -> None:
        seconds = time.monotonic() - self._since
        write_retire_order(folder, RetireOrder(by=self._spec.id, note=f"had nothing to do for {seconds:.0f} s"))

    def _is_wanted(self, info: AgentInfo, terminal: Terminal) -> bool:
        look = terminal.pane.look() if terminal.is_alive else None
        is_watched = bool(look and (look.attached or look.taken_over))
        return is_watched or bool(self._fleet.deliveries.waiting(keys.agent_queue(info.agent_id)))
