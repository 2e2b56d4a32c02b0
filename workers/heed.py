"""This process keeps to what is paused and stopped: it asks the broker at intervals, and looks at the disk often.

What counts is what stands on this machine's disk, so a stop needs no broker, and whoever starts later knows it at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis

from torch_tasks.errors import BrokerUnreachable, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.holds import Hold, Stop
from torch_tasks.local.holds import NodeHolds
from torch_tasks.models import AgentSpec
from torch_tasks.transport import pause

log = logging.getLogger(__name__)

#: How often the disk is looked at.
_LOOK_SECONDS = 0.5
#: How long the first word of the broker is waited for; without it, what the disk says counts.
_FIRST_SECONDS = 2.0


class Heed:
    """What holds this worker: its agent's pauses and its machine's stop; of a node worker only the stop."""

    def __init__(self, fleet: Fleet, agent: AgentSpec | None = None) -> None:
        self._fleet = fleet
        self._agent = agent
        self._holds = NodeHolds(fleet.settings.state_dir)
        self._agreeing = threading.Lock()
        self._heard = threading.Event()

    @property
    def stop(self) -> Stop | None:
        """This machine is stopped."""
        return self._holds.stop

    @property
    def paused(self) -> Hold | None:
        """The agent is paused."""
        return self._holds.book().over(self._agent.id, self._agent.role) if self._agent else None

    @property
    def why(self) -> str | None:
        """Why nothing is begun now, in words."""
        if stop := self.stop:
            return f"stopped {stop}"
        paused = self.paused
        return f"{self._agent.id} is paused {paused}" if self._agent and paused else None

    def begin(self, on_change: Callable[[], None], unfinished: Callable[[], bool]) -> None:
        """From now on; what is ``unfinished`` comes all the same, or nobody could end it or give it back.

        Before the broker was asked once, nothing is taken.
        """
        global _of_this_process
        _of_this_process = self
        pause.while_so(lambda: not unfinished() and (not self._heard.is_set() or self.why is not None))
        threading.Thread(target=self._ask, name="heed broker", daemon=True).start()
        self._heard.wait(_FIRST_SECONDS)
        threading.Thread(target=self._watch, args=(on_change,), name="heed", daemon=True).start()

    def hear(self) -> None:
        """Ask the broker now; what it says is on the disk afterwards."""
        with self._agreeing:
            self._holds.agree(self._fleet.holds)
            self._heard.set()

    def _watch(self, on_change: Callable[[], None]) -> None:
        known: tuple[Hold | None, Hold | None] = (None, None)
        look = threading.Event()
        while True:
            if known != (now := (self.stop, self.paused)):
                known = now
                log.warning("%s", self.why or "neither paused nor stopped any more")
                on_change()
            look.wait(_LOOK_SECONDS)

    def _ask(self) -> None:
        """In a thread of its own: a broker that does not answer must not keep anybody from seeing the file."""
        rest = threading.Event()
        while True:
            try:
                self.hear()
            except (redis.RedisError, BrokerUnreachable) as error:
                log.debug("what is held is not known anew: %s", error)
            except TorchError as error:
                log.error("%s", error)
            rest.wait(self._fleet.settings.heartbeat_seconds if self._heard.is_set() else _LOOK_SECONDS)


_of_this_process: Heed | None = None


def hear_now() -> str | None:
    """Something was paused, resumed, stopped or started: ask what; returns what holds this worker afterwards."""
    if _of_this_process is None:
        return None
    _of_this_process.hear()
    return _of_this_process.why
