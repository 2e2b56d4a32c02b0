"""``torch.checkin``: the Celery task that delivers one fire of a check-in."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Any

from torch_tasks.app import CHECKIN, app
from torch_tasks.caller import acting_as
from torch_tasks.checkins.delivery import CheckinDelivery
from torch_tasks.errors import BrokerAway, TaskIdTaken
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import Checkin, Fire, SlotOutcome
from torch_tasks.model.fields import now
from torch_tasks.model.task import TaskSpec
from torch_tasks.store.signed_checkins import why_not_fired
from torch_tasks.tasks.dispatch import SOON
from torch_tasks.tasks.execution import HeldMessage
from torch_tasks.tasks.run import run
from torch_tasks.tasks.system_task import SystemTask

_MAY_BE_DONE = "its message was signed so long ago that it may have fired before"


@app.task(bind=True, base=SystemTask, name=CHECKIN, ignore_result=True, finds_what_it_did=True)
def checkin(self: Any, asked: Checkin, slot: datetime, late: float) -> None:
    """Deliver one fire of a check-in to its receivers."""

    def enqueue(spec: TaskSpec) -> None:
        by = asked.asked_by
        # One that was sent before has another prompt if it says how late it is.
        with acting_as(by.caller) if by else nullcontext(), suppress(TaskIdTaken):
            run.apply_async((spec,), task_id=spec.id)

    message = HeldMessage(self.request)
    if why := why_not_fired(asked) or (_MAY_BE_DONE if message.is_older_than_records else ""):
        fleet().checkins.note(
            Fire(checkin_id=asked.id, slot=slot, outcome=SlotOutcome.REFUSED, at=now(), late=late, note=why)
        )
        message.refuse(why)
    try:
        CheckinDelivery(fleet(), asked, slot, late, enqueue).deliver()
    except BrokerAway:  # also if it forgot the receiver; one that is away is asked for the pause when it is back
        message.put_aside(SOON)
