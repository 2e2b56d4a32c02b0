"""Whoever asks through the server, by a token or a login: what they order and schedule is believed."""

from __future__ import annotations

import pytest

from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.errors import BadSignature
from torch_tasks.model.asker import Asker
from torch_tasks.model.checkin import Checkin, Every, Target
from torch_tasks.model.fields import now
from torch_tasks.model.hold import Hold
from torch_tasks.store.holds import require_signed, signed_hold
from torch_tasks.store.signed_checkins import require_signed_checkin, signed_checkin

pytestmark = pytest.mark.usefixtures("enforced")

CALLERS = [
    Caller(),
    Caller(role="operator"),  # the owner's own token
    Caller(role="operator", own_name="token-laptop"),
    Caller(role="viewer", own_name="person-ada-0123456789ab"),
    Caller(other=CallerKind.PROGRAM, role="program", own_name="token-ci"),
]


def _hold() -> Hold:
    return Hold(by=Asker.now("here"), at=now(), revision=int(now().timestamp() * 1000))


def _checkin() -> Checkin:
    schedule = Every(seconds=60, start=now())
    who = Asker.now("here")
    return Checkin(note="?", target=Target(role="qa"), schedule=schedule, sender=who.name, asked_by=who)


@pytest.mark.parametrize("who", CALLERS, ids=lambda who: f"{who.name}-{who.role}")
def test_what_they_order_and_schedule_is_believed(who: Caller) -> None:
    with acting_as(who):
        hold, checkin = signed_hold("agent dev-1", _hold()), signed_checkin(_checkin())
    require_signed("agent dev-1", hold)
    require_signed_checkin(checkin)


def test_the_person_at_the_machine_speaks_for_nobody_else() -> None:
    with acting_as(Caller(role="operator", own_name="token-laptop")):
        hold, checkin = _hold(), _checkin()
    with pytest.raises(BadSignature, match="may not speak for token-laptop"):
        require_signed_checkin(signed_checkin(checkin.model_copy(update={"sender": "operator"})))
    forged = signed_hold("agent dev-1", hold.model_copy(update={"by": Asker.now()}))
    with pytest.raises(BadSignature):
        require_signed("agent dev-1", forged.model_copy(update={"by": hold.by}))
