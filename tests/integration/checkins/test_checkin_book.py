"""Check-ins from Python: what is kept, what is refused, and what whoever asks is told."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from beats import registered
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.checkins import celery_tasks
from torch_tasks.checkins.book import AcceptedCheckin
from torch_tasks.checkins.delivery import CheckinDelivery, pane_named
from torch_tasks.errors import CheckinNotFound, InvalidCheckin, NotYours, UnknownRecipient
from torch_tasks.facades.checkins import Checkins
from torch_tasks.fleet import fleet
from torch_tasks.link import perform
from torch_tasks.model.asker import Asker
from torch_tasks.model.checkin import At, Busy, Cron, Every, Fire, Misfire, PaneTarget, SlotOutcome
from torch_tasks.monitoring import SystemMonitor
from torch_tasks.operations import checkins as operations
from torch_tasks.security.rights import Right
from torch_tasks.settings import settings
from torch_tasks.store.signed_checkins import signed_checkin

NOTE = "look at the build"


@pytest.fixture
def book(torch: Torch, empty: None, monkeypatch: pytest.MonkeyPatch) -> Checkins:
    """The book of an empty fleet, kept by a person in Berlin, and two agents."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    registered("developer-1", kind="claude")
    registered("qa-1", "qa")
    return torch.checkins


def seconds_from_now(kept: AcceptedCheckin) -> float:
    """How far away its first slot is."""
    assert kept.slot
    return (kept.slot - fleet().checkins.now()).total_seconds()


def test_each_way_to_say_when_is_kept_as_it_was_said(book: Checkins) -> None:
    after = book.after(minutes=0.5, note=NOTE, target="developer-1")
    assert isinstance(after.checkin.schedule, At)
    assert 25 < seconds_from_now(after) <= 30
    assert book.at("2031-07-01 9:00", NOTE, "developer-1").slot == datetime(2031, 7, 1, 7, tzinfo=UTC)
    assert book.at(datetime(2031, 7, 1, 9), NOTE, "qa-1", timezone="UTC").slot == datetime(2031, 7, 1, 9, tzinfo=UTC)
    assert book.at(datetime(2031, 7, 1, 9, tzinfo=UTC), NOTE, "qa-1").zone == ""
    for interval in (90, 90.0, timedelta(seconds=90), "90s", "every 90 seconds"):
        every = book.every(interval, NOTE, "developer-1")
        assert isinstance(every.checkin.schedule, Every)
        assert every.checkin.schedule.seconds == 90
        assert 85 < seconds_from_now(every) <= 90
    begins = book.every("2h", NOTE, "developer-1", start="2031-07-01 9:00", timezone="UTC")
    assert begins.slot == datetime(2031, 7, 1, 9, tzinfo=UTC)
    assert book.every(60, NOTE, "qa-1", start=datetime(2031, 7, 1, 9, tzinfo=UTC)).slot == begins.slot
    cron = book.cron("0 9 * * 1-5", NOTE, "developer-1", timezone="America/New_York")
    assert cron.checkin.schedule == Cron(expression="0 9 * * 1-5", timezone="America/New_York")
    assert cron.zone == "America/New_York (as given)"
    assert book.cron("0 9 * * 1-5", NOTE, "developer-1").zone == "Europe/Berlin (from TZ)"
    assert len(book.list()) == 13


def test_every_option_is_kept(book: Checkins) -> None:
    kept = book.add(
        "every hour",
        NOTE,
        role="developer",
        when="skip",
        misfire="all",
        jitter=5,
        ends="2031-07-01 9:00",
        max_runs=3,
        id="mine",
    )
    checkin = kept.checkin
    assert (checkin.id, checkin.sender, str(checkin.target)) == ("mine", "operator", "all of role developer")
    assert (checkin.when, checkin.misfire, checkin.jitter, checkin.max_runs) == (Busy.SKIP, Misfire.ALL, 5.0, 3)
    assert checkin.ends == datetime(2031, 7, 1, 7, tzinfo=UTC)
    assert book.get("mine").checkin == checkin
    assert str(book.add("30", NOTE, project="/srv/shop").checkin.target) == "all in /srv/shop"
    task = book.add("30", "make", task={"role": "developer", "skills": ["python"], "timeout": 5.0}).checkin
    assert str(task.target) == "a task for developer"
    assert [record.due is not None for record in book.list()] == [True] * 3


def test_who_is_asked_for_is_the_pane_it_is_asked_from(book: Checkins, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidCheckin, match="no agent's pane"):
        book.after(30, NOTE)
    monkeypatch.setenv("TORCH_AGENT_ID", "developer-1")
    kept = Checkins().after(30, NOTE)
    assert (kept.checkin.sender, kept.checkin.target.agent) == ("developer-1", "developer-1")
    with pytest.raises(NotYours, match="agent qa-1 is the child of no agent"):
        Checkins().after(30, "make", "qa-1")
    with pytest.raises(NotYours, match="that is pm-1's"):
        Checkins("pm-1").after(30, NOTE)
    with pytest.raises(NotYours, match="more agents than one"):
        Checkins().after(30, NOTE, role="qa")
    monkeypatch.delenv("TORCH_AGENT_ID")
    assert Checkins("pm-1").after(30, "make", "qa-1").checkin.sender == "pm-1"


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"target": "developer-2"}, UnknownRecipient, "did you mean developer-1"),
        ({"task": {"agent": "developer-2"}}, UnknownRecipient, "did you mean developer-1"),
        ({"target": "a b"}, InvalidCheckin, "holds a space"),
        ({"target": "qa-1", "role": "qa"}, InvalidCheckin, "names agent and role"),
        ({"task": {"agnet": "qa-1"}}, InvalidCheckin, "agnet"),
        ({"target": "qa-1", "when": "soon"}, InvalidCheckin, "when"),
        ({"target": "qa-1", "jitter": -1}, InvalidCheckin, "jitter"),
        ({"target": "qa-1", "max_run": 3}, InvalidCheckin, "max_run: is not a field"),
        ({"target": "qa-1", "ends": "yesterday 9:00"}, InvalidCheckin, "is in the past"),
        ({"target": "qa-1", "ends": "2026-01-01 9:00"}, InvalidCheckin, "is in the past"),
        ({"target": "qa-1", "note": ""}, InvalidCheckin, "empty"),
        ({"target": "qa-1", "note": "x" * (1 << 20) + "x"}, InvalidCheckin, "TORCH_MESSAGE_LIMIT_BYTES"),
    ],
)
def test_what_cannot_be_kept_is_refused(book: Checkins, how: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        book.add("every hour", **{"note": NOTE, **how})
    assert book.list() == []


def test_a_task_is_enqueued_with_the_rights_of_who_asked_for_the_check_in(book: Checkins) -> None:
    how: dict[str, Any] = {"task": {"role": "qa"}, "id": "mine"}
    with acting_as(Caller(agent="developer-1")):
        kept = perform(operations.add, operations.AddCheckin.build(time="30", note="make test", target="developer-1"))
        assert kept.checkin.asked_by == Asker(kind=CallerKind.AGENT, name="developer-1", node=settings().node)
        with pytest.raises(NotYours, match="more agents than one"):
            Checkins().after(30, NOTE, task={"permissions": "allow"})
    kept = book.add("30", "make test", **how)
    assert kept.slot
    with acting_as(Caller(agent="developer-1", role="project-manager")):
        asked = signed_checkin(kept.checkin.model_copy(update={"asked_by": Asker.now()}))
    celery_tasks.checkin.push_request(properties={"delivery_tag": "none"})
    celery_tasks.checkin.run(asked, kept.slot, 0.0)
    celery_tasks.checkin.pop_request()
    [record] = fleet().records.latest(1)
    assert (record.spec.prompt, record.enqueued_by and record.enqueued_by.name) == ("make test", "developer-1")
    assert fleet().records.latest(1)[0].spec.role == "qa"


def test_who_changes_a_task_that_may_do_everything_needs_the_right_for_it(book: Checkins) -> None:
    book.add("30", "make test", task={"permissions": "allow"}, id="mine")
    note, to = ({"note": "rm -rf /"}, {"target": "developer-1"})
    changes = [operations.ChangeCheckin.build(checkin_id="mine", **fields) for fields in (note, to)]
    assert [operations.change.also(asked) for asked in changes] == [Right.GRANT, None]


def test_times_that_are_none_are_refused(book: Checkins) -> None:
    for minutes in (0, -1, float("nan"), float("inf"), "soon"):
        with pytest.raises(InvalidCheckin):
            book.after(minutes, NOTE, "developer-1")  # type: ignore[arg-type]
    for interval in (0, -5, float("nan"), "often", "weekdays 9:00"):
        with pytest.raises(InvalidCheckin):
            book.every(interval, NOTE, "developer-1")
    for line in ("61 * * * *", "every 30m", "30"):
        with pytest.raises(InvalidCheckin):
            book.cron(line, NOTE, "developer-1")
    with pytest.raises(InvalidCheckin, match="no single moment"):
        book.at("every 30m", NOTE, "developer-1")
    assert book.list() == []


def test_only_what_is_named_is_changed(book: Checkins) -> None:
    kept = book.add("every hour", NOTE, "developer-1", id="mine", max_runs=3)
    changed = book.change("mine", note="look at the tests")
    assert changed.checkin == kept.checkin.model_copy(update={"note": "look at the tests"})
    assert (changed.slot, changed.version) == (kept.slot, 2)
    moved = book.change("mine", time="weekdays 9:00", timezone="UTC", role="qa", jitter=2)
    assert moved.checkin.schedule == Cron(expression="0 9 * * 1-5", timezone="UTC")
    assert (str(moved.checkin.target), moved.checkin.jitter, moved.checkin.max_runs) == ("all of role qa", 2.0, 3)
    for wrong in ({"target": "qa-2"}, {"time": "soon"}, {"note": ""}, {"id": "yours"}):
        with pytest.raises((InvalidCheckin, UnknownRecipient)):
            book.change("mine", **wrong)
    assert book.get("mine").version == 3
    with pytest.raises(CheckinNotFound, match="no check-in 'other'"):
        book.change("other", note=NOTE)


def test_whoever_asks_hears_what_is_to_be_known(book: Checkins) -> None:
    said = " ".join(book.after(30, "continue", role="writer", id="one").warnings)
    assert "no agent has the role writer" in said
    assert "says little" in said
    assert "no beat runs" in said
    assert "no node worker runs" in said
    assert "exists already and was not changed" in book.after(30, NOTE, "developer-1", id="one").warnings[0]
    assert not any("little" in warning for warning in book.after(30, "status", "qa-1").warnings)  # a command line
    left = registered("gone-1")
    fleet().registry.leave(left)
    assert "gone-1 is offline now" in book.after(30, NOTE, "gone-1").warnings[0]
    assert "operator" in str(book.after(30, NOTE, "operator").checkin.target)


def test_the_systems_health_says_that_nothing_fires(book: Checkins) -> None:
    assert not any("beat" in reason for reason in SystemMonitor().get_system_health().reasons)
    book.after(30, NOTE, "developer-1")
    reasons = SystemMonitor().get_system_health().reasons
    assert any(reason.startswith("no beat runs") for reason in reasons)
    assert any(reason.startswith("no node worker runs") for reason in reasons)
    fleet().client.set(keys.BEAT_LEADER, "somebody")
    fleet().client.zadd(keys.NODE_HEARTBEAT, {"node-a": time.time() * 1000})
    assert not any("runs" in reason for reason in SystemMonitor().get_system_health().reasons)


# ── a pane of a user's own ───────────────────────────────────────────────────────────────────────────────────────


def typed(book: Checkins, pane: PaneTarget) -> tuple[CheckinDelivery, Fire]:
    """A fire into this pane, and what became of it."""
    kept = book.after(30, NOTE, pane=pane)
    assert kept.slot
    delivery = CheckinDelivery(fleet(), kept.checkin, kept.slot, 0.0, lambda spec: None)
    return delivery, delivery.deliver()


def test_a_note_that_may_have_been_typed_is_not_typed_again(book: Checkins, tmp_path: Path) -> None:
    pane = PaneTarget(node="node-a", socket=str(tmp_path / "tmux"), target="work:0")
    kept = book.after(30, NOTE, pane=pane, id="once")
    assert kept.slot
    assert fleet().checkins.begin("once", kept.slot)  # and then its node worker died
    fire = CheckinDelivery(fleet(), kept.checkin, kept.slot, 0.0, lambda spec: None).deliver()
    assert fire.outcome is SlotOutcome.REFUSED
    assert fire.note.startswith("it is unknown whether it was typed into pane work:0 on node-a")
    assert book.history("once")[0].outcome is SlotOutcome.REFUSED


def test_the_id_of_a_pane_means_nothing_to_a_later_server(
    book: Checkins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    monkeypatch.delenv("TMUX", raising=False)
    log = tmp_path / "log"
    reader = f'exec python3 -uc \'for line in open(0): open("{log}", "a").write(line)\''
    argv = ["tmux", "-f", "/dev/null", "new-session", "-d", "-s", "work", reader]
    tmux = lambda *words: subprocess.run([*words], check=True, capture_output=True, text=True, timeout=20).stdout  # noqa: E731
    tmux(*argv)
    try:
        pane = pane_named("%0")
        assert pane.server
        delivery, fire = typed(book, pane)
        assert (fire.outcome, fire.note) == (SlotOutcome.SENT, "the program in work:0.0 (%0) took it")
        assert delivery.deliver() == fire  # it came again, and is typed once
        assert log.read_text() == f"{NOTE}\n"
        tmux("tmux", "kill-server")
        until(lambda: not psutil.pid_exists(pane.server or 0), "the server has ended")
        tmux(*argv)
        assert pane_named("%0").server != pane.server
        _, fire = typed(book, pane)
        assert fire.outcome is SlotOutcome.REFUSED
        assert "was restarted" in fire.note
        assert typed(book, pane_named("work"))[1].outcome is SlotOutcome.SENT  # a name means what it says
        assert log.read_text() == f"{NOTE}\n{NOTE}\n"
    finally:
        tmux("tmux", "kill-server")
