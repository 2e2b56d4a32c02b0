"""A plain Celery app over the leased transport, for its tests. Each task notes its effects in a file."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore

from torch_tasks.errors import BrokerUnreachable
from torch_tasks.transport.amqp import LeasedAMQP

EFFECTS = Path(os.environ.get("TRANSPORT_EFFECTS", "/nowhere"))
OPTIONS: dict[str, Any] = {
    "priority_steps": [0, 3, 6, 9],
    "polling_interval": 5,
    "lease_seconds": 3.0,
    "recovery_seconds": 1.0,
    **json.loads(os.environ.get("TRANSPORT_OPTIONS", "{}")),
}


def made_app(url: str) -> Celery:
    """The app, on this broker."""
    made = Celery("transport", broker=url, amqp=LeasedAMQP, set_as_current=False)
    made.conf.update(
        broker_transport_options=OPTIONS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=True,
        task_default_queue="work",
    )
    return made


app = made_app(os.environ.get("TRANSPORT_URL", "redis://nowhere"))


def note(what: str, task: str, **more: Any) -> None:
    """Append an effect to the file, in one write."""
    line = json.dumps({"what": what, "id": task, "at": time.time() * 1000, "pid": os.getpid(), **more}) + "\n"
    descriptor = os.open(EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


@app.task(bind=True, name="work")
def work(self: Any, seconds: float = 0) -> None:
    """Begin, take so long, end."""
    tag = self.request.properties["delivery_tag"]
    losses = self.request.get("torch_deliveries") or 0
    note("begin", self.request.id, tag=tag, losses=losses, redelivered=self.request.delivery_info["redelivered"])
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
    note("end", self.request.id, tag=tag)


@app.task(bind=True, name="crash")
def crash(self: Any) -> None:
    """Take the worker along."""
    note("begin", self.request.id)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, name="end_by")
def end_by(self: Any, how: str, *args: Any) -> None:
    """End this delivery by the keeper, if it is the first; later ones are done."""
    tag = self.request.properties["delivery_tag"]
    queue = self.request.delivery_info["routing_key"]
    note("begin", self.request.id, tag=tag, queue=queue, args=[how, *args])
    if how != "nothing":
        holder = app.amqp.leases.keeper_of(tag)
        assert holder is not None
        done = getattr(holder, how)(tag, *args)
        note(
            how,
            self.request.id,
            done=done,
            again=getattr(holder, how)(tag, *args),
            holder=app.amqp.leases.keeper_of(tag) is None,
        )
        raise Ignore


@app.task(bind=True, name="look")
def look(self: Any) -> None:
    """Note what the keeper knows."""
    here = app.amqp.leases.keepers()[0]
    note(
        "look", self.request.id, held=sorted(here.held()), message=here.message(self.request.properties["delivery_tag"])
    )


def account() -> None:
    """An account that takes long, and at first finds the broker away."""
    tries.append(1)
    if len(tries) < 3:
        raise BrokerUnreachable("not yet")
    time.sleep(OPTIONS["account_seconds"])
    note("account", "", tries=len(tries))


def broken() -> None:
    """An account that can never be put back."""
    raise RuntimeError("never")


tries: list[int] = []
if "account_seconds" in OPTIONS:
    app.amqp.leases.listeners.on_return += [broken, account]
app.amqp.leases.listeners.on_lost.append(
    lambda tag, message: note("lost", json.loads(message)["headers"]["id"], tag=tag)
)
app.amqp.leases.listeners.on_buried.append(lambda name, message: note("buried", name, message=message))
app.amqp.leases.listeners.on_return.append(lambda: note("return", ""))
