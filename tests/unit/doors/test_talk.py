"""What is asked about messages, check-ins and what agents share: whose it is, which rights it takes, what is wrong."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from torch_tasks.caller import Caller, acting_as
from torch_tasks.checkins.times import Zone
from torch_tasks.errors import InvalidCheckin, InvalidClaim, InvalidMessage, InvalidRequest, ResourceTaken
from torch_tasks.facades.checkins import Checkins
from torch_tasks.facades.collaboration import Claims
from torch_tasks.facades.messages import NovaOrchestrator
from torch_tasks.facades.polling import turns
from torch_tasks.model.message import Message, MessageKind, MessageRecord, MessageState, Sent
from torch_tasks.operations import checkins, collaboration, messages
from torch_tasks.operations.operation import WAIT_SECONDS, Operation, operation_named
from torch_tasks.security.rights import EVERYBODY, Right, Subject
from torch_tasks.store.collaboration import Claim, named


class Noting:
    """A link that notes what is asked for and answers what it was given."""

    def __init__(self, *replies: Any) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._replies = list(replies)

    def perform(self, operation: Operation[Any, Any], asked: Any, key: str | None = None) -> Any:
        self.asked.append((operation.name, asked))
        reply = self._replies.pop(0) if self._replies else None
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.asked]


def subject(name: str, **fields: Any) -> Subject:
    declared = operation_named(name)
    return declared.about(declared.request.build(**fields))


# ── whose it is ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("message.send", {"to": "qa-1", "text": "x", "sender": "pm-1"}),
        ("message.ask", {"to": "qa-1", "text": "x", "sender": "pm-1"}),
        ("message.reply", {"message_id": "m", "text": "x", "sender": "pm-1"}),
        ("message.broadcast", {"text": "x", "sender": "pm-1"}),
        ("message.inbox", {"party": "pm-1"}),
        ("message.read", {"party": "pm-1"}),
        ("message.history", {"party": "pm-1"}),
        ("checkin.add", {"note": "x", "time": "30", "sender": "pm-1"}),
        ("note.add", {"project": "shop", "fact": "x", "by": "pm-1"}),
        ("claim.take", {"resource": "x", "by": "pm-1"}),
        ("claim.release", {"resource": "x", "by": "pm-1"}),
        ("help.ask", {"text": "x", "sender": "pm-1"}),
    ],
)
def test_whoever_is_named_as_the_one_who_acts_is_whom_it_is_about(name: str, fields: dict[str, Any]) -> None:
    with acting_as(Caller(agent="qa-1")):
        assert subject(name, **fields).party == "pm-1"
        unnamed = {key: value for key, value in fields.items() if value != "pm-1"}
        assert subject(name, **unnamed).party is None


def test_the_history_of_all_is_nobodys_own_and_an_agent_gets_its_own_instead() -> None:
    assert subject("message.history").party == EVERYBODY
    with acting_as(Caller(agent="qa-1")):
        assert subject("message.history").party is None
        assert subject("message.refused").party == EVERYBODY
        assert subject("message.listen", role="qa").party == EVERYBODY


@pytest.mark.parametrize(
    ("receiver", "agent"),
    [
        ({}, None),
        ({"target": "dev-1"}, "dev-1"),
        ({"role": "qa"}, EVERYBODY),
        ({"project": "shop"}, EVERYBODY),
        ({"task": {"role": "qa"}}, EVERYBODY),
    ],
)
def test_a_check_in_is_about_its_receiver(receiver: dict[str, Any], agent: str | None) -> None:
    assert subject("checkin.add", note="x", time="30", **receiver).agent == agent


@pytest.mark.parametrize(
    ("task", "right"),
    [
        (None, None),
        ({"role": "qa"}, Right.ENQUEUE),
        ({"permissions": "ask"}, Right.ENQUEUE),
        ({"permissions": "allow"}, Right.GRANT),
    ],
)
def test_a_check_in_that_enqueues_takes_the_right_of_its_task(task: Any, right: Right | None) -> None:
    assert checkins.add.also(checkins.AddCheckin.build(note="x", time="30", task=task)) == right
    if task is not None:  # without one, it is that of the task which the check-in has
        assert checkins.change.also(checkins.ChangeCheckin.build(checkin_id="c", task=task)) == right


# ── what is refused before anything is done ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_type", "fields", "error", "said"),
    [
        (messages.Send, {"to": "a b", "text": "x"}, InvalidMessage, "holds a space"),
        (messages.Send, {"to": "qa-1", "text": " \n"}, InvalidMessage, "this message cannot be sent: text: is empty"),
        (messages.Send, {"to": "qa-1", "text": "x", "urgency": 1}, InvalidMessage, "urgency: is not a field"),
        (messages.Send, {"to": "qa-1", "text": "x", "id": "../x"}, InvalidMessage, "id: "),
        (messages.AwaitMessage, {"message_id": "m", "seconds": 31}, InvalidMessage, "seconds: "),
        (checkins.AddCheckin, {"note": "x"}, InvalidCheckin, "name one of time and minutes"),
        (checkins.AddCheckin, {"note": "x", "time": "30", "minutes": 3}, InvalidCheckin, "name one of time and"),
        (checkins.AddCheckin, {"note": "x", "minutes": float("nan")}, InvalidCheckin, "minutes: "),
        (checkins.ChangeCheckin, {"checkin_id": "c", "id": "d"}, InvalidCheckin, "id: is not a field"),
        (collaboration.TakeClaim, {"resource": "x", "wait": 31}, InvalidRequest, "wait: "),
        (collaboration.AddNote, {"project": "", "fact": "x"}, InvalidRequest, "project: "),
    ],
)
def test_a_wrong_field_is_named(request_type: Any, fields: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        request_type.build(**fields)


def test_a_resource_is_named_as_every_process_understands_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    assert named(" port:8080 ") == "port:8080"
    assert named("/srv/a/../b/") == "/srv/b"
    with pytest.raises(InvalidClaim, match="give the whole path"):
        named("./tree")
    monkeypatch.chdir(tmp_path)
    link = Noting(None, None)
    Claims(link=link).release("./tree")
    assert link.asked[0][1].resource == str(tmp_path.resolve() / "tree")


# ── long polls ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wait_is_cut_into_requests_and_always_asks_once() -> None:
    assert list(turns(0)) == [0]
    begun = time.monotonic()
    some = []
    for seconds in turns(0.2):
        some.append(seconds)
        time.sleep(0.05)
    assert some == sorted(some, reverse=True)
    assert 0.2 <= time.monotonic() - begun < 5
    endless = turns(None)
    assert [next(endless) for _ in range(3)] == [WAIT_SECONDS] * 3


def test_a_question_is_sent_once_and_its_reply_asked_for_until_it_is_there() -> None:
    sent = Sent(id="q", target="qa-1", state=MessageState.ACCEPTED, transport="broker")
    message = Message(sender="qa-1", target="operator", message="fine", kind=MessageKind.REPLY)
    reply = MessageRecord(message=message, state=MessageState.READ)
    link = Noting(messages.AskedQuestion(question=sent), None, None, reply)
    assert NovaOrchestrator(link=link).ask("qa-1", "how is it?") == reply
    assert link.names == ["message.ask", *["message.await_reply"] * 3]
    assert {asked.message_id for _, asked in link.asked[1:]} == {"q"}


def test_a_claim_that_is_waited_for_is_asked_for_again() -> None:
    claim = Claim(resource="x", by="operator", agent=False, since=datetime(2026, 1, 1))
    link = Noting(ResourceTaken("taken"), ResourceTaken("taken"), claim)
    assert Claims(link=link).claim("x", wait=60) == claim
    with pytest.raises(ResourceTaken):
        Claims(link=Noting(ResourceTaken("taken"))).claim("x")


def test_what_depends_on_the_callers_folder_and_clock_travels_with_the_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.chdir(tmp_path)
    link = Noting()
    Checkins("pm-1", link=link).at(datetime(2031, 7, 1, 9), "x", task={"workdir": "shop"}, ends=datetime(2031, 7, 2))
    [(name, asked)] = link.asked
    assert (name, asked.sender, asked.form) == ("checkin.add", "pm-1", checkins.TimeForm.ONCE)
    assert (asked.clock, asked.time) == (Zone("Asia/Tokyo", "from TZ"), "2031-07-01 09:00:00")
    assert (asked.task, asked.ends) == ({"workdir": str(tmp_path / "shop")}, "2031-07-02 00:00:00")
