"""The messages at an agent's worker: their stages on disk, their order, and when one goes into the pane."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.errors import IllegalTransition
from torch_tasks.model.message import Message, MessageState, Urgency, When
from torch_tasks.workers.folders import STAGES, MessageFolder, MessageStage, undelivered, unreported
from torch_tasks.workers.host.waiting_messages import (
    AgentReadiness,
    DeliveryDecision,
    MessageQueue,
    conclusion,
    decide_delivery,
)
from torch_tasks.workers.programs.submission import SubmissionPhase

NEW, WAITING, BEGUN, CONCLUDED, REPORTED = MessageStage


def message(name: str, sender: str = "qa-1", *, when: When = When.IDLE, priority: Urgency = Urgency.NORMAL) -> Message:
    return Message(id=name, timestamp=1.0, sender=sender, target="dev-1", message=name, when=when, priority=priority)


def folder_at(stage: MessageStage, messages: Path) -> MessageFolder:
    """A message's folder as a worker left it that died at this stage."""
    folder = MessageFolder(messages, message("m-1"))
    if stage is NEW:
        return folder
    folder.keep()
    if stage is WAITING:
        return folder
    (folder.folder / "submission.json").write_text("{}")
    if stage is BEGUN:
        return folder
    folder.conclude(MessageState.DEAD, "refused", "broker")
    if stage is REPORTED:
        folder.note_reported()
    return folder


@pytest.mark.parametrize("stage", MessageStage)
def test_a_stage_is_read_from_the_disk(stage: MessageStage, tmp_path: Path) -> None:
    folder_at(stage, tmp_path)
    assert MessageFolder(tmp_path, message("m-1")).stage is stage


@pytest.mark.parametrize("stage", MessageStage)
def test_a_message_waits_again_only_where_that_is_legal(stage: MessageStage, tmp_path: Path) -> None:
    folder = folder_at(stage, tmp_path)
    if WAITING in STAGES[stage] and stage is not NEW:
        folder.wait_again()
        assert folder.stage is WAITING
        assert folder.outcome is None
    elif stage is not NEW:
        with pytest.raises(IllegalTransition):
            folder.wait_again()


@pytest.mark.parametrize("stage", MessageStage)
def test_whatever_the_stage_the_last_outcome_counts(stage: MessageStage, tmp_path: Path) -> None:
    folder = folder_at(stage, tmp_path)
    folder.conclude(MessageState.ACKNOWLEDGED, "taken", "fallback")
    assert folder.stage is CONCLUDED
    assert folder.outcome
    assert folder.outcome.note == "taken"


def test_what_is_reported_is_so_once_for_all(tmp_path: Path) -> None:
    folder = folder_at(CONCLUDED, tmp_path)
    assert [one.message.id for one in unreported(tmp_path)] == ["m-1"]
    folder.note_reported()
    folder.note_reported()
    assert folder.stage is REPORTED
    assert not list(unreported(tmp_path))


@pytest.mark.parametrize(("stage", "is_open"), [(WAITING, True), (BEGUN, True), (CONCLUDED, False), (REPORTED, False)])
def test_a_next_worker_goes_on_with_what_has_no_outcome(stage: MessageStage, is_open: bool, tmp_path: Path) -> None:
    folder_at(stage, tmp_path)
    assert bool(list(undelivered(tmp_path))) is is_open


def order(*messages: Message) -> list[str]:
    """The ids in the order in which a queue gives them out."""
    queue = MessageQueue()
    for one in messages:
        queue.add(MessageFolder(Path("unused"), one), None)
    given = []
    while waiting := queue.first():
        given.append(waiting.message.id)
        queue.remove(waiting)
    return given


EMERGENCY = Urgency.EMERGENCY
ORDERS = {
    "as they came": ([message("a"), message("b", "qa-2"), message("c")], "abc"),
    "an emergency first": ([message("a"), message("b"), message("e", "qa-2", priority=EMERGENCY)], "eab"),
    "an emergency before an earlier interrupt": (
        [message("a", when=When.INTERRUPT), message("e", "qa-2", priority=EMERGENCY)],
        "ea",
    ),
    "what does not wait before what does": ([message("a"), message("n", "qa-2", when=When.NOW), message("b")], "nab"),
    "a pressing one takes its sender's earlier ones along": (
        [message("x", "qa-2"), message("a"), message("b"), message("n", when=When.NOW)],
        "abnx",
    ),
    "an emergency overtakes its own sender": ([message("a"), message("e", priority=EMERGENCY)], "ea"),
    "emergencies of one sender as they came": (
        [message("e", priority=EMERGENCY), message("f", priority=EMERGENCY, when=When.INTERRUPT)],
        "ef",
    ),
}


@pytest.mark.parametrize(("messages", "expected"), ORDERS.values(), ids=list(ORDERS))
def test_the_order_of_delivery(messages: list[Message], expected: str) -> None:
    assert "".join(order(*messages)) == expected


def test_only_what_presses_is_delivered_during_a_task() -> None:
    queue = MessageQueue()
    queue.add(MessageFolder(Path("unused"), message("a")), None)
    assert queue.first_pressing() is None
    queue.add(MessageFolder(Path("unused"), message("i", when=When.INTERRUPT)), None)
    first = queue.first_pressing()
    assert first
    assert first.message.id == "a", "a later message of the same sender must not overtake it"
    assert queue.when(first) is When.INTERRUPT


def test_a_message_waits_once_however_often_it_is_fetched() -> None:
    assert order(message("a"), message("a"), message("b")) == ["a", "b"]


WAIT, DELIVER, INTERRUPT = DeliveryDecision
FREE, BUSY = AgentReadiness(is_free=True), AgentReadiness()
WORKS, LISTENS = AgentReadiness(is_working=True), AgentReadiness(is_working=True, listens_while_working=True)
DECISIONS = [
    # when, agent, is it an emergency, is it begun, what is done
    (When.IDLE, FREE, False, False, DELIVER),
    (When.INTERRUPT, FREE, False, False, DELIVER),
    (When.IDLE, BUSY, False, False, WAIT),
    (When.NOW, BUSY, False, False, WAIT),  # a person types, or a shell works: nothing may be disturbed
    (When.INTERRUPT, BUSY, False, False, WAIT),
    (When.IDLE, BUSY, False, True, DELIVER),  # its text is in the composer: it comes to its end
    (When.IDLE, LISTENS, False, False, WAIT),
    (When.NOW, LISTENS, False, False, DELIVER),
    (When.NOW, WORKS, False, False, WAIT),
    (When.INTERRUPT, WORKS, False, False, INTERRUPT),
    (When.INTERRUPT, LISTENS, False, False, INTERRUPT),
    (When.INTERRUPT, WORKS, False, True, DELIVER),  # its own submission is not interrupted
    # a new prompt would hide the answer to the last message
    (When.IDLE, FREE._replace(is_answering=True), False, False, WAIT),
    (When.NOW, FREE._replace(is_answering=True), False, False, DELIVER),
    # paused and stopped
    (When.NOW, FREE._replace(is_paused=True), False, False, WAIT),
    (When.NOW, FREE._replace(is_paused=True), True, False, DELIVER),
    (When.IDLE, FREE._replace(is_paused=True), False, True, DELIVER),
    (When.NOW, FREE._replace(is_stopped=True), True, False, WAIT),
    (When.NOW, FREE._replace(is_stopped=True), True, True, WAIT),
]


@pytest.mark.parametrize(("when", "agent", "emergency", "begun", "expected"), DECISIONS)
def test_whether_a_message_goes_into_the_pane(
    when: When, agent: AgentReadiness, emergency: bool, begun: bool, expected: DeliveryDecision
) -> None:
    assert decide_delivery(when, agent, is_emergency=emergency, is_begun=begun) is expected


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        (SubmissionPhase.INTENDED, None),
        (SubmissionPhase.STAGED, None),
        (SubmissionPhase.SUBMITTED, None),
        (SubmissionPhase.ACCEPTED, MessageState.ACKNOWLEDGED),
        (SubmissionPhase.INDETERMINATE, MessageState.DEAD),  # delivering it again might do so twice
        (SubmissionPhase.REFUSED, MessageState.DEAD),
    ],
)
def test_how_a_submission_concludes_its_message(phase: SubmissionPhase, state: MessageState | None) -> None:
    ended = conclusion(phase, "seen")
    assert (ended and ended[0]) == state
