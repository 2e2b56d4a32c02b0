"""Torch's app with entries of a user's own in its schedule, for ``celery -A beat_app beat``."""

from __future__ import annotations

import os
from datetime import timedelta

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

app.conf.beat_schedule = {name: ENTRIES[name] for name in os.environ["ENTRIES"].split(",") if name}
