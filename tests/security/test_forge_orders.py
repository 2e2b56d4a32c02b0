"""Whoever can write to the broker pauses agents there, and changes what a check-in says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import read_settings_anew
from nodes import Broker

from torch_tasks import Torch, keys
from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature, NotSigned
from torch_tasks.fleet import fleet
from torch_tasks.machine.holds import NodeHolds
from torch_tasks.model.asker import Asker
from torch_tasks.model.checkin import Checkin, Every
from torch_tasks.model.fields import now
from torch_tasks.model.hold import EVERYBODY, Hold
from torch_tasks.security.holds import agree
from torch_tasks.settings import settings
from torch_tasks.store.holds import new_hold
from torch_tasks.store.signed_checkins import require_signed_checkin, why_not_fired


@pytest.fixture(autouse=True)
def enforcing(torch: Torch, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that refuses what nobody signed."""
    broker.empty()
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TORCH_SIGNING", "enforce")
    read_settings_anew()
    yield
    broker.empty()
    monkeypatch.undo()
    read_settings_anew()


def machine() -> NodeHolds:
    """What this machine obeys after it has asked the broker."""
    node = NodeHolds(settings().state_dir)
    agree(node)
    return node


def forge(broker: Broker, hold: Hold, **changes: object) -> None:
    broker.client.hset(keys.HOLDS, EVERYBODY, json.dumps(hold.model_dump(mode="json") | changes))


def revision(broker: Broker) -> int:
    seconds, micros = broker.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def test_a_pause_that_nobody_ordered_is_not_obeyed_and_undone(broker: Broker) -> None:
    person = Asker(kind=CallerKind.PERSON, name="operator")
    forge(broker, Hold(by=person, at=now(), reason="ha", revision=revision(broker)))
    assert machine().latest().in_force(EVERYBODY) is None
    assert fleet().holds.latest().in_force(EVERYBODY) is None
    assert "it is not signed" in fleet().denials.latest(1)[0].why


def test_a_pause_that_was_ordered_is_obeyed_and_cannot_be_lifted_by_hand(broker: Broker) -> None:
    paused = fleet().holds.put(EVERYBODY, new_hold("release"))
    assert machine().latest().in_force(EVERYBODY)
    forge(broker, paused, lifted=True, revision=revision(broker) + 1)
    held = machine().latest().in_force(EVERYBODY)
    assert held
    assert held.reason == "release"
    back = fleet().holds.latest().in_force(EVERYBODY)
    assert back
    assert machine().latest().in_force(EVERYBODY)
    fleet().holds.put(EVERYBODY, new_hold("done", lifted=True))
    assert machine().latest().in_force(EVERYBODY) is None


def test_an_old_pause_is_not_ordered_again(broker: Broker) -> None:
    paused = fleet().holds.put(EVERYBODY, new_hold())
    fleet().holds.put(EVERYBODY, new_hold(lifted=True))
    assert machine().latest().in_force(EVERYBODY) is None
    forge(broker, paused, revision=revision(broker) + 3_600_000)
    assert machine().latest().in_force(EVERYBODY) is None
    assert "it is an old one" in fleet().denials.latest(1)[0].why


def test_a_pause_of_one_agent_is_none_of_all(broker: Broker) -> None:
    paused = fleet().holds.put("agent dev-1", new_hold())
    forge(broker, paused)
    assert machine().latest().in_force(EVERYBODY) is None


def checkin() -> Checkin:
    fields = {"note": "look at the build", "target": {"agent": "dev-1"}, "sender": "operator"}
    return Checkin.build(**fields, schedule=Every(seconds=3600, start=now()), asked_by=Asker.now())


def test_a_check_in_whose_note_was_changed_does_not_fire(broker: Broker) -> None:
    kept = fleet().checkins.add(checkin()).checkin
    assert why_not_fired(kept) == ""
    text = json.loads(str(broker.client.hget(keys.checkin(kept.id), "checkin")))
    broker.client.hset(keys.checkin(kept.id), "checkin", json.dumps(text | {"note": "push to production"}))
    changed = fleet().checkins.get(kept.id)
    assert changed.checkin.note == "push to production"
    assert "was changed afterwards" in why_not_fired(changed.checkin)
    with pytest.raises(BadSignature):  # an edit does not sign what is there
        fleet().checkins.change(changed.checkin.model_copy(update={"max_runs": 3}), changed.version)


def test_a_check_in_that_somebody_wrote_by_hand_does_not_fire() -> None:
    with pytest.raises(NotSigned):
        require_signed_checkin(checkin())
