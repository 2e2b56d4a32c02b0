"""Torch's app with entries of a user's own in its schedule, for ``celery -A beat_app beat``."""

from __future__ import annotations

import os
import signal
from collections.abc import ItemsView
from datetime import timedelta
from typing import Any

from celery.schedules import crontab, schedule

from torch_tasks.app import app


class InAnHour(schedule):  # type: ignore[misc]
    """A schedule of a user's own: so long after it was last due, whatever that was."""

    def __init__(self) -> None:
        super().__init__(timedelta(hours=1))


ENTRIES = {
    "every second": {"task": "torch.prune", "schedule": 1.0, "options": {"queue": "nobody"}},
    "each minute": {"task": "torch.prune", "schedule": crontab()},
    "of its own": {"task": "torch.prune", "schedule": InAnHour()},
    "broken": {"task": "torch.prune", "schedule": "whenever"},
    "unknown": {"task": "nobody.knows", "schedule": 1.0, "args": [{"not": "sendable", "so": {1, 2}}]},
}


class AsksToEnd:
    """Asks this process to end while Python frees it, where no exception gets out."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class EndsBeat(dict[str, Any]):
    """A schedule; who reads it first is asked to end, as a person may ask while beat starts."""

    asked = False

    def items(self) -> ItemsView[str, Any]:
        if not self.asked:
            self.asked = True
            AsksToEnd()
        return super().items()


chosen = {name: ENTRIES[name] for name in os.environ["ENTRIES"].split(",") if name}
app.conf.beat_schedule = EndsBeat(chosen) if "ENDS_BEAT" in os.environ else chosen
