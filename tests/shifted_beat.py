"""A beat whose clock is ahead of the broker's by as many milliseconds as a file says, for ``--scheduler``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch_tasks.beat.scheduler import TorchScheduler
from torch_tasks.fleet import fleet
from torch_tasks.store.timetable import Tick, Timetable


class ShiftedTimetable(Timetable):
    """Decides by the shifted clock what is due."""

    def tick(self, held: str, most: int) -> Tick:
        self.ahead_ms = int(Path(os.environ["SHIFT"]).read_text())
        return super().tick(held, most)


class ShiftedScheduler(TorchScheduler):
    """Fires by the shifted clock, and looks at it often."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_interval = 0.1

    def _open_timetable(self) -> Timetable:
        return ShiftedTimetable(fleet().client, fleet().settings)
