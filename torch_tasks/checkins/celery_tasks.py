"""``torch.checkin``: the Celery task that delivers one fire of a check-in."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from celery.exceptions import Reject

from torch_tasks.app import CHECKIN, app
from torch_tasks.checkins.delivery import CheckinDelivery
from torch_tasks.errors import BrokerAway, BrokerForgot, TaskIdTaken
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import Checkin
from torch_tasks.model.task import TaskSpec
from torch_tasks.tasks.dispatch import SOON
from torch_tasks.tasks.execution import HeldMessage
from torch_tasks.tasks.run import run


@app.task(bind=True, name=CHECKIN, ignore_result=True)
def checkin(self: Any, fields: dict[str, Any], slot: str, late: float) -> None:
    """Deliver one fire of a check-in to its receivers."""

    def enqueue(spec: TaskSpec) -> None:
        with suppress(TaskIdTaken):  # sent before; a prompt that says how late it is differs each time
            run.apply_async((spec,), task_id=spec.id)

    asked = Checkin.model_validate(fields)
    try:
        CheckinDelivery(fleet(), asked, datetime.fromisoformat(slot), late, enqueue).deliver()
    except BrokerForgot:
        HeldMessage(self.request).put_aside(SOON)
    except BrokerAway as error:
        time.sleep(SOON)  # else this worker would get it again at once
        raise Reject(f"the broker is away: {error}", requeue=True) from error
