"""What a sender hears: who is there, what is refused, which way a message goes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import read_settings_anew, run_client
from nodes import Broker
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.caller import Caller, acting_as
from torch_tasks.communication import MessageState, NovaOrchestrator
from torch_tasks.communication.policy import policy
from torch_tasks.errors import InboxFull, InvalidMessage, MessageRefused, NotDelivered, NotInPane, UnknownRecipient
from torch_tasks.fleet import fleet
from torch_tasks.link import perform
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now
from torch_tasks.operations import messages


def enter(agent_id: str, role: str, **fields: Any) -> AgentInfo:
    """An agent is there."""
    known: dict[str, Any] = {"agent_id": agent_id, "role": role, "kind": "shell", "node": "n", "pid": 1, "host": "h"}
    known |= {"incarnation": 0, "workdir": "/w", "tmux_socket": "/t", "started_at": now(), "state": AgentState.READY}
    return fleet().registry.register(AgentInfo.model_validate(known | fields), holder_is_gone=True)


@pytest.fixture
def nova(torch: Torch, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NovaOrchestrator]:
    """A person, two developers, a tester, and the manager."""
    broker.empty()
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TORCH_OFFLINE_SECONDS", "3600")  # nobody has to be heard of again
    read_settings_anew()
    for name in ("developer-1", "developer-2"):
        enter(name, "developer", skills=("python",), workdir="/w/shop")
    enter("qa-1", "qa", skills=("python", "web"))
    enter("pm-1", "project-manager", kind="claude")
    yield NovaOrchestrator()
    broker.empty()
    policy.cache_clear()
    monkeypatch.undo()
    read_settings_anew()


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy of one's own."""
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    policy.cache_clear()
    return tmp_path / "policy.toml"


def test_nobody_of_that_name_is_refused_and_near_names_are_told(nova: NovaOrchestrator) -> None:
    with pytest.raises(UnknownRecipient, match=r"did you mean developer-[12]"):
        nova.send_message("develper-1", "hello")
    assert nova.history() == []


def test_what_a_former_server_accepted_is_sent_again_although_its_sender_learns_that_late(
    nova: NovaOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then the others have been put back, and the broker counts as one that has all of it."""
    monkeypatch.setattr("torch_tasks.store.outbox.CHECKED_SECONDS", 0)
    nova.send_message("developer-1", "hello")
    until(lambda: nova.history() and fleet().client.exists(keys.RECONCILED), "this server has what was sent")
    late = nova.send_message("developer-1", "hello again")
    inboxes = fleet().inboxes
    fleet().client.delete(keys.message(late.id))
    inboxes.drop(next(entry for entry in inboxes.waiting("developer-1") if entry.message_id == late.id))
    until(lambda: len(nova.inbox("developer-1")) == 2, "both are there")
    assert [one.message.message for one in nova.inbox("developer-1")] == ["hello", "hello again"]


def test_the_plans_form_names_the_role_first(nova: NovaOrchestrator) -> None:
    assert nova.send_message("developers", "developer-1", "hello").state is MessageState.ACCEPTED
    assert nova.inbox("developer-1")[0].message.message == "hello"
    with pytest.raises(UnknownRecipient, match="agent developer-1 is a developer, not a project-manager"):
        nova.send_message("project_managers", "developer-1", "hello")


def test_a_channel_carries_the_plans_fields(nova: NovaOrchestrator, broker: Broker) -> None:
    with broker.client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("nova:torch:devs")
        until(lambda: broker.client.pubsub_numsub("nova:torch:devs")[0][1] == 1, "it listens")
        sent = nova.send_message("developer-1", "hello", correlation_id="c-1")
        heard = until(lambda: channel.get_message(timeout=1), "it hears")
    told = json.loads(heard["data"])
    assert (told["id"], told["sender"], told["target"], told["message"]) == (
        sent.id,
        "operator",
        "developer-1",
        "hello",
    )
    assert told["correlation_id"] == "c-1"
    assert abs(told["timestamp"] - now().timestamp()) < 60


def test_a_subscriber_hears_what_a_role_is_told(nova: NovaOrchestrator, broker: Broker) -> None:
    heard: list[str] = []

    def listen() -> None:
        heard.append(next(NovaOrchestrator().subscribe("developer")).message)

    listener = threading.Thread(target=listen)
    listener.start()
    until(lambda: broker.client.pubsub_numsub("nova:torch:devs")[0][1] == 1, "it listens")
    nova.send_message("pm-1", "not for you")
    nova.send_message("developer-1", "for you")
    listener.join(20)
    assert heard == ["for you"]


def test_what_is_sent_between_two_requests_of_a_listener_is_heard(nova: NovaOrchestrator) -> None:
    first = perform(messages.listen, messages.Listen.build(role="developers", seconds=0))
    assert first.messages == []
    for number in range(3):
        nova.send_message("developer-1", f"number {number}")
        nova.send_message("qa-1", "to others")
    heard = perform(messages.listen, messages.Listen.build(role="developer", since=first.until))
    assert [message.message for message in heard.messages] == ["number 0", "number 1", "number 2"]
    assert (
        perform(messages.listen, messages.Listen.build(role="developer", since=heard.until, seconds=0)).messages == []
    )


def test_a_request_with_a_key_sends_once_and_every_letter_of_a_broadcast_too(nova: NovaOrchestrator) -> None:
    asked = messages.Send.build(to="qa-1", text="hello")
    assert perform(messages.send, asked, "k-1").id == perform(messages.send, asked, "k-1").id
    assert perform(messages.send, asked, "k-2").id != perform(messages.send, asked, "k-1").id
    all_asked = messages.Broadcast.build(text="to all", role="developer")
    for _ in range(2):
        perform(messages.broadcast, all_asked, "k-3")
    assert [record.message.message for record in nova.inbox("qa-1")] == ["hello", "hello"]
    assert [record.message.message for record in nova.inbox("developer-1")] == ["to all"]


def test_a_question_and_its_reply_may_be_two_requests(nova: NovaOrchestrator) -> None:
    asked = perform(messages.ask, messages.Ask.build(to="qa-1", text="how is it?", seconds=0))
    assert asked.reply is None
    await_reply = messages.AwaitMessage.build(message_id=asked.question.id, seconds=0)
    assert perform(messages.await_reply, await_reply) is None
    NovaOrchestrator("qa-1").reply(asked.question.id, "green")
    reply = perform(messages.await_reply, await_reply)
    assert reply
    assert (reply.message.message, nova.message(reply.message.id).state) == ("green", MessageState.READ)
    with pytest.raises(NotInPane, match="name the message to answer"):
        nova.reply(None, "which?")


def test_a_message_is_its_senders_and_its_receivers_own(nova: NovaOrchestrator) -> None:
    sent = NovaOrchestrator("developer-1").send_message("developer-2", "shall we?")  # goes to pm-1
    asked = messages.OfMessage.build(message_id=sent.id)
    for agent, party in (("developer-1", None), ("developer-2", None), ("pm-1", None), ("qa-1", "pm-1")):
        with acting_as(Caller(agent=agent)):
            assert messages.get.about(asked).party == party
    with acting_as(Caller(agent="developer-1")):
        assert {record.message.id for record in NovaOrchestrator().history()} == {sent.id}
    with acting_as(Caller(agent="qa-1")):
        assert NovaOrchestrator().history() == []


def test_hostile_texts(nova: NovaOrchestrator) -> None:
    for text, why in (("", "is empty"), (" \n", "is empty"), ("a\0b", "NUL"), ("\udcff", "not valid Unicode")):
        with pytest.raises(InvalidMessage, match=why):
            nova.send_message("qa-1", text)
    whole = "x" * (1 << 20)
    sent = nova.send_message("qa-1", whole)
    assert nova.message(sent.id).message.message == whole
    with pytest.raises(InvalidMessage, match="1,048,577 bytes, more than 1,048,576"):
        nova.send_message("qa-1", whole + "y")


def test_a_full_inbox_says_so(nova: NovaOrchestrator) -> None:
    said = run_client(
        "from torch_tasks.communication import NovaOrchestrator\n"
        "from torch_tasks.errors import InboxFull\n"
        "nova, sent = NovaOrchestrator(), 0\n"
        "try:\n"
        "    while sent < 50: nova.send_message('qa-1', 'again'); sent += 1\n"
        "except InboxFull as error: print(sent, error)",
        TORCH_INBOX_LIMIT="20",
    )
    assert said.startswith("20 the inbox of qa-1 holds 20 messages already (TORCH_INBOX_LIMIT, ")
    assert len(nova.inbox("qa-1")) == 20
    assert issubclass(InboxFull, Exception)


def test_people_have_an_inbox(nova: NovaOrchestrator) -> None:
    asked = nova.send_message("qa-1", "how is it?")
    replied = NovaOrchestrator("qa-1").reply(asked.id, "it is green")
    assert nova.message(asked.id).reply == replied.id
    [record] = nova.read()
    assert (record.message.message, record.message.reply_to, record.message.sender) == (
        "it is green",
        asked.id,
        "qa-1",
    )
    assert nova.message(replied.id).state is MessageState.READ
    assert nova.read() == []


def test_waiting_for_an_agent_that_is_away_ends(nova: NovaOrchestrator) -> None:
    sent = nova.send_message("qa-1", "hello")
    with pytest.raises(NotDelivered, match="accepted in the inbox of qa-1"):
        nova.await_delivery(sent.id, 0.3)


# ── the policy ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_developers_speak_through_their_manager(nova: NovaOrchestrator) -> None:
    sent = NovaOrchestrator("developer-1").send_message("developer-2", "shall we?")
    assert sent.target == "pm-1"
    assert "developers speak to developers through their project-manager" in sent.note
    [record] = nova.inbox("pm-1")
    assert (record.message.sender, record.message.via) == ("developer-1", "developer-2")
    direct = NovaOrchestrator("developer-1").send_message("developer-2", "fire!", priority="emergency")
    assert direct.target == "developer-2"
    assert nova.send_message("developer-2", "a person may").target == "developer-2"
    assert NovaOrchestrator("developer-1").send_message("qa-1", "to others, too").target == "qa-1"


def test_a_manager_that_would_run_the_words_as_a_command_gets_none(nova: NovaOrchestrator) -> None:
    enter("pm-1", "project-manager", kind="shell")
    sent = NovaOrchestrator("developer-1").send_message("developer-2", "the tests are red")
    assert sent.target == "developer-2"


def test_pairs_are_allowed_and_the_policy_can_be_turned_off(nova: NovaOrchestrator, rules: Path) -> None:
    rules.write_text('[hub]\nallowed = [["developer-1", "developer-2"]]\n')
    assert NovaOrchestrator("developer-1").send_message("developer-2", "hi").target == "developer-2"
    assert NovaOrchestrator("developer-2").send_message("developer-1", "hi").target == "pm-1"
    policy.cache_clear()
    rules.write_text("enabled = false\n")
    assert NovaOrchestrator("developer-2").send_message("developer-1", "hi").target == "developer-1"


def test_after_three_exchanges_the_manager_decides(nova: NovaOrchestrator) -> None:
    one, other = NovaOrchestrator("developer-1"), NovaOrchestrator("qa-1")
    for number in range(3):
        asked = one.send_message("qa-1", f"question {number}", correlation_id="matter", kind="question")
        assert asked.target == "qa-1"
        assert other.reply(asked.id, "no").target == "developer-1"
    escalated = one.send_message("qa-1", "but", correlation_id="matter")
    assert escalated.target == "pm-1"
    assert "3 exchanges on this matter are enough" in escalated.note


def test_kinds_have_their_form(nova: NovaOrchestrator) -> None:
    with pytest.raises(InvalidMessage, match="'Current: …', 'Blocked: …'"):
        nova.send_message("pm-1", "Completed: all of it", kind="status")
    assert [entry.what for entry in nova.refused()] == ["invalid"]
    assert nova.send_message("pm-1", "Completed: a\ncurrent: b\nBlocked: no", kind="status")
    with pytest.raises(InvalidMessage, match="must say what it acknowledges"):
        nova.send_message("pm-1", "got it", kind="ack")


def test_who_is_locked_gets_nothing(nova: NovaOrchestrator, rules: Path) -> None:
    rules.write_text('locked = ["qa-1"]\n')
    with pytest.raises(MessageRefused, match="qa-1 is locked"):
        nova.send_message("qa-1", "hello")
    [entry] = nova.refused()
    assert (entry.sender, entry.target, entry.what) == ("operator", "qa-1", "refused")
    assert "qa-1 is locked" in entry.why


def test_a_broadcast_reaches_all_that_match_and_not_too_often(nova: NovaOrchestrator) -> None:
    assert {sent.target for sent in nova.broadcast("all")} == {"developer-1", "developer-2", "qa-1", "pm-1"}
    assert {sent.target for sent in nova.broadcast("x", skills=["python"], role="developers")} == {
        "developer-1",
        "developer-2",
    }
    matched = nova.broadcast("x", project="shop")
    assert {sent.target for sent in matched} == {"developer-1", "developer-2"}
    assert len({nova.message(sent.id).message.correlation_id for sent in matched}) == 1
    with pytest.raises(UnknownRecipient, match="no agent is online that matches"):
        nova.broadcast("x", role="devops")
    for _ in range(7):
        nova.broadcast("x", role="qa")
    with pytest.raises(MessageRefused, match="10 broadcasts within a minute"):
        nova.broadcast("x", role="qa")
