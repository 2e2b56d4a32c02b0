"""A Celery app whose beat is RedBeat, on the same broker: what Torch's beat is compared with."""

from __future__ import annotations

import os

from benchmarks.bare import ADDRESS, bare_app

app = bare_app("redbeat", polling_interval=None)
app.conf.update(
    redbeat_redis_url=ADDRESS.url.get_secret_value(),  # it does not know how Celery writes a socket
    beat_scheduler="redbeat.RedBeatScheduler",
    beat_max_loop_interval=1,
    # RedBeat's own choice is five times the interval above; in a tick that takes longer it loses its lock.
    redbeat_lock_timeout=float(os.environ.get("BENCH_REDBEAT_LOCK_SECONDS", "600")),
)


@app.task
def nothing(text: str) -> None:
    """As little as a task can do."""
