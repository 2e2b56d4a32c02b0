"""Keeps this machine's daily numbers for the report while the node worker runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch_tasks.fleet import Fleet
from torch_tasks.model.node import KeptAgent
from torch_tasks.monitoring.rollups import PAUSE_SECONDS, MachineRollups
from torch_tasks.system.loops import Loop


class RollupKeeper:
    def __init__(self, kept: Callable[[], Sequence[KeptAgent]], fleet: Fleet) -> None:
        self._rollups = MachineRollups(fleet, kept)
        self.loop = Loop("rollups", lambda: self._rollups.look(time.time()), pause=PAUSE_SECONDS)

    def end(self) -> None:
        """What is away from now on was not expected to be there."""
        self._rollups.look(time.time(), ends=True)
