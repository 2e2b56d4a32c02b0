"""Whether a process can do its job now, and if not, why."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator

from torch_tasks.checkins.readiness import readiness
from torch_tasks.errors import TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.node import KeptAgent, KeptState
from torch_tasks.system.loops import in_background
from torch_tasks.system.machine_use import LEAST_FREE_MIB, disk_space

log = logging.getLogger(__name__)

RESTORING = "the broker was restarted, and the fleet is restoring what it forgot"
_ANSWER_SECONDS = 2.0
_FRESH_SECONDS = 1.0
_AMISS = (KeptState.RESTARTING, KeptState.QUARANTINED)


class ReadinessProbe:
    """Looks once a second at most, however often it is asked; a look that takes long is itself a lack."""

    def __init__(self, look: Callable[[], Iterable[str]]) -> None:
        self._look = look
        self._asking = threading.Lock()
        self._looking: threading.Event | None = None
        """Set when the look that is under way has ended."""
        self._looked = 0.0
        self._found: list[str] = []

    def lacks(self) -> list[str]:
        """What keeps this process from its job; empty if nothing does. Answers within two seconds."""
        with self._asking:
            if self._looking is None and time.monotonic() - self._looked >= _FRESH_SECONDS:
                self._looking = threading.Event()
                in_background("readiness", self._note)
            looking = self._looking
        if looking and not looking.wait(_ANSWER_SECONDS):
            return [f"it is not known after {_ANSWER_SECONDS:g} s whether all is well"]
        return self._found

    def _note(self) -> None:
        try:
            self._found = list(self._look())
        except Exception as error:
            log.exception("whether all is well cannot be found out")
            self._found = [f"it cannot be found out whether all is well: {error}"]
        with self._asking:
            ended, self._looking, self._looked = self._looking, None, time.monotonic()
        if ended:
            ended.set()


def lacks_of_disk(of: Fleet) -> Iterator[str]:
    """That the disk of this machine's state folder is full, if it is."""
    folder = of.settings.state_dir
    try:
        disk = disk_space(folder)
    except OSError as error:
        yield f"the state folder {folder} cannot be used: {error.strerror or error}"
    else:
        if disk.is_full:
            yield f"the disk of {folder} is full: {disk}, and {LEAST_FREE_MIB} are needed"


def lacks_of_broker(of: Fleet) -> Iterator[str]:
    """That the broker is away, or has not yet back all that it knew."""
    try:
        of.client.ping()
        if not of.gate.state().open:
            yield RESTORING
    except TorchError as error:
        yield str(error)


def lacks_of_node(of: Fleet, kept: Callable[[], Collection[KeptAgent]]) -> Iterator[str]:
    """What keeps a node worker from its job: disk, broker, a beat for its check-ins, agents that it keeps alive."""
    yield from lacks_of_disk(of)
    yield from (away := list(lacks_of_broker(of)))
    if not away and of.checkins.to_come():
        yield from readiness(of).lacks
    for agent in kept():
        if agent.state in _AMISS:
            yield f"{agent.agent_id} is {agent.state}" + (f": {agent.reason}" if agent.reason else "")


def lacks_of_beat(of: Fleet) -> Iterator[str]:
    """What keeps check-ins from firing: disk, broker, that no beat leads."""
    yield from lacks_of_disk(of)
    yield from (away := list(lacks_of_broker(of)))
    if not away and readiness(of).leads is None:
        yield "no beat leads"
