"""A Celery app whose beat is RedBeat, on the same broker: what Torch's beat is compared with."""

from __future__ import annotations

from benchmarks.bare import bare_app

app = bare_app("redbeat", polling_interval=None)
app.conf.update(
    beat_scheduler="redbeat.RedBeatScheduler",
    beat_max_loop_interval=1,
    # Its own, or it loses it in the middle of a tick that takes longer.
    redbeat_lock_timeout=600,
)


@app.task
def nothing(text: str) -> None:
    """As little as a task can do."""
