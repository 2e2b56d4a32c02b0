"""Applies pauses and stops to this worker: those on disk, where the broker's newer ones are written, too.

The disk decides, so a stop needs no broker, and a process that starts later sees it at once.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from torch_tasks.errors import BrokerAway, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.holds import NodeHolds
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.hold import Hold, Stop
from torch_tasks.security.audit import note_event
from torch_tasks.security.holds import agree
from torch_tasks.system.loops import Loop
from torch_tasks.transport.claiming import IntakePause

log = logging.getLogger(__name__)

#: How often a node worker reads the disk; at the start, how long after a failure the broker is asked again.
_LOOK_SECONDS = 0.5
#: How long the start waits for the broker's first answer.
_FIRST_SECONDS = 2.0


class Interruption(NamedTuple):
    """Why an agent is interrupted, and the task in which that was ordered, if it was in one."""

    why: str
    task: str | None


class HoldsWatcher:
    """Watches the pauses of this worker's agent and the stop of its machine; for a node worker only the stop."""

    def __init__(self, fleet: Fleet, intake: IntakePause, agent: AgentSpec | None = None) -> None:
        self._fleet = fleet
        self._intake = intake
        self._agent = agent
        self._holds = NodeHolds(fleet.settings.state_dir)
        self._agreeing = threading.Lock()
        # In a thread of its own: a broker that does not answer must not keep this worker from reading the disk.
        self._asking = Loop("ask for holds", self._ask)
        self._answered = threading.Event()
        self._known: tuple[Hold | None, Hold | None] = (None, None)
        self._on_change: Callable[[], None] = lambda: None
        # A node worker asks for all agents of its machine; an agent worker asks only if the node worker does not.
        self._interval = fleet.settings.heartbeat_seconds * (1.5 if agent else 1)
        self._ask_again = 0.0

    @property
    def stop(self) -> Stop | None:
        """The stop of this machine, if it is stopped."""
        return self._holds.stop

    @property
    def paused(self) -> Hold | None:
        """The pause of the agent, if it is paused."""
        return self._holds.latest().pause_of(self._agent.id, self._agent.role) if self._agent else None

    @property
    def reason(self) -> str | None:
        """Why the worker may begin nothing now, if so."""
        return self._words(self.paused)

    @property
    def interruption(self) -> Interruption | None:
        """Why the agent must be interrupted, if so."""
        paused = self.paused if self.paused and self.paused.interrupt else None
        why, hold = self._words(paused), self.stop or paused
        return Interruption(why, hold.task) if why and hold else None

    def _words(self, paused: Hold | None) -> str | None:
        if stop := self.stop:
            return f"stopped {stop}"
        return f"{self._agent.id} is paused {paused}" if self._agent and paused else None

    def begin(self, on_change: Callable[[], None], unfinished: Callable[[], bool]) -> None:
        """Take no tasks while held, except an ``unfinished`` one, to end it or give it back.

        No task is taken before the broker has answered once. The owner calls :meth:`look` at intervals.
        """
        self._on_change = on_change
        self._intake.pause_while(lambda: not unfinished() and (not self._answered.is_set() or self.reason is not None))
        self._asking.start()
        self._answered.wait(_FIRST_SECONDS)

    def ask_broker(self) -> None:
        """Ask the broker now, and write its answer to the disk."""
        with self._agreeing:
            agree(self._holds)
            self._answered.set()

    def look(self) -> None:
        """Read the disk, and ask the broker if no worker of this machine has asked for a while."""
        if self._known != (now := (self.stop, self.paused)):
            self._known = now
            log.warning("%s", self.reason or "no longer paused or stopped")
            on = f"agent {self._agent.id}" if self._agent else f"node {self._fleet.settings.node}"
            note_event("hold.applied" if self.reason else "hold.lifted", on, why=self.reason or "")
            self._on_change()
        if time.monotonic() >= self._ask_again and not self._holds.agreed_within(self._interval):
            self._ask_again = time.monotonic() + self._interval
            self._asking.wake()

    def watch(self) -> None:
        """Call :meth:`look` at short intervals, from now on."""
        Loop("watch holds", self.look, pause=_LOOK_SECONDS, longest_retry_seconds=_LOOK_SECONDS).start()

    def _ask(self) -> float:
        """Ask until the broker has answered once, then whenever this is wanted."""
        try:
            self.ask_broker()
        except TorchError as error:
            level = logging.DEBUG if isinstance(error, BrokerAway) else logging.ERROR
            log.log(level, "cannot ask the broker for pauses and stops: %s", error)
        return math.inf if self._answered.is_set() else _LOOK_SECONDS
