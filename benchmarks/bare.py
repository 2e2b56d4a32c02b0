"""A Celery app without Torch on the same broker: what Torch is compared with."""

from __future__ import annotations

import os

from celery import Celery

from torch_tasks.app import app as torch_app

QUEUE = "bare"
UNREAD = "bare.unread"

URL = os.environ["TORCH_BROKER_URL"]

app = Celery("bare", broker=URL, backend=URL)
app.conf.update(
    # By its path, because Torch may put a transport of its own behind the name redis.
    broker_transport="kombu.transport.redis:Transport",
    broker_transport_options=torch_app.conf.broker_transport_options,
    result_backend_transport_options={"global_keyprefix": "bare:"},
    task_default_queue=QUEUE,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task
def nothing(text: str) -> None:
    """As little as a task can do."""
