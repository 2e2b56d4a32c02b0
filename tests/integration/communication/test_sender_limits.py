"""Nobody can fill an inbox alone, and a full one still takes emergencies and what people say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import read_settings_anew, register_agent
from nodes import Broker

from torch_tasks import Torch
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.errors import InboxFull, SenderLimit
from torch_tasks.store.message_audit import AuditKind

SENDERS = [f"qa-{number}" for number in range(12)]


@pytest.fixture
def people(torch: Torch, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NovaOrchestrator]:
    """A person, and agents that send too much; an inbox holds 100 messages."""
    broker.empty()
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TORCH_OFFLINE_SECONDS", "3600")
    monkeypatch.setenv("TORCH_INBOX_LIMIT", "100")
    monkeypatch.setenv("TORCH_UNREAD_PER_SENDER", "20")
    read_settings_anew()
    for name in SENDERS:
        register_agent(name, "qa")
    yield NovaOrchestrator()
    broker.empty()
    monkeypatch.undo()
    read_settings_anew()


def flood(sender: str, target: str, priority: str = "normal") -> tuple[int, InboxFull]:
    """How many messages were accepted before one was refused, and why it was."""
    nova = NovaOrchestrator(sender)
    for sent in range(500):
        try:
            nova.send_message(target, f"number {sent}", priority=priority)
        except InboxFull as error:
            return sent, error
    raise AssertionError("nothing was refused")


def test_one_sender_does_not_fill_a_persons_inbox_nor_its_emergencies(people: NovaOrchestrator) -> None:
    sent, error = flood("qa-0", "operator")
    assert (sent, type(error)) == (20, SenderLimit)
    assert str(error).startswith("operator has 20 messages of qa-0 that it has not read (TORCH_UNREAD_PER_SENDER)")
    assert flood("qa-0", "operator", "emergency")[0] == 2
    assert NovaOrchestrator("qa-1").send_message("operator", "still heard").id
    assert NovaOrchestrator("qa-1").send_message("operator", "fire", priority="emergency").id
    assert people.refused()[-1].what is AuditKind.FULL


def test_who_reads_makes_room(people: NovaOrchestrator) -> None:
    assert flood("qa-0", "operator")[0] == 20
    assert len(people.read()) == 20
    assert flood("qa-0", "operator")[0] == 20


def test_many_senders_leave_a_reserve_to_emergencies_and_to_people(people: NovaOrchestrator) -> None:
    target = SENDERS[-1]
    counts = [flood(name, target) for name in SENDERS[:5]]
    assert [sent for sent, _ in counts] == [20, 20, 20, 20, 10]
    assert "holds 90 messages already (TORCH_INBOX_LIMIT, TORCH_INBOX_RESERVE_PERCENT)" in str(counts[-1][1])
    for _ in range(5):
        people.send_message(target, "from a person")
    assert [flood(name, target, "emergency")[0] for name in SENDERS[:4]] == [2, 2, 1, 0]
    with pytest.raises(InboxFull, match="holds 100 messages"):
        people.send_message(target, "one too many")


def test_a_sender_has_a_rate_and_emergencies_have_one_of_their_own(
    people: NovaOrchestrator, monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    monkeypatch.setenv("TORCH_MESSAGES_PER_MINUTE", "5")
    read_settings_anew()
    for name in SENDERS[1:6]:
        NovaOrchestrator("qa-0").send_message(name, "hello")
    with pytest.raises(SenderLimit, match=r"qa-0 has sent 5 messages within a minute \(TORCH_MESSAGES_PER_MINUTE\)"):
        NovaOrchestrator("qa-0").send_message("qa-7", "hello")
    assert NovaOrchestrator("qa-0").send_message("qa-7", "fire", priority="emergency").id
    assert NovaOrchestrator("qa-1").send_message("qa-7", "hello").id
    for name in SENDERS:
        people.send_message(name, "people have no rate")
    broker.client.delete("nova:torch:sent_lately:qa-0:normal")
    assert NovaOrchestrator("qa-0").send_message("qa-7", "a minute later").id


def test_a_message_that_is_sent_twice_counts_once(people: NovaOrchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_MESSAGES_PER_MINUTE", "2")
    read_settings_anew()
    for _ in range(5):
        NovaOrchestrator("qa-0").send_message("qa-1", "hello", id="the-same")
    assert NovaOrchestrator("qa-0").send_message("qa-1", "hello").id
