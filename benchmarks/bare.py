"""A Celery app without Torch on the same broker: what Torch is compared with."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP

from torch_tasks.app import app as torch_app
from torch_tasks.settings import settings

# With the login that stands in it: Torch's processes change theirs for one of their own.
ADDRESS = settings().given_broker() or settings().broker()
URL = ADDRESS.celery_url


def bare_app(name: str, amqp: type[AMQP] = AMQP, **options: Any) -> Celery:
    """A plain app with a queue of its own name, with these options of the transport beside Torch's."""
    made = Celery(name, broker=URL, backend=URL, amqp=amqp, set_as_current=False)
    made.conf.update(
        broker_transport_options={**torch_app.conf.broker_transport_options, **options},
        result_backend_transport_options={"global_keyprefix": f"{name}:"},
        task_default_queue=name,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
    )
    return made


UNREAD = "bare.unread"
# kombu's own sleeps for the interval between two polls.
app = bare_app("bare", polling_interval=None)


@app.task
def nothing(text: str) -> None:
    """As little as a task can do."""
