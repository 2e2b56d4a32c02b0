"""What a task is, whether its turn is over, and when to look again, by what is reported and what is seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Evidence, FailureKind, Question
from torch_tasks.workers.programs.events import EventKind, ProgramEvent
from torch_tasks.workers.programs.kind import Hindrance, StateReading
from torch_tasks.workers.programs.screen import ComposerContent
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase, SubmissionStep
from torch_tasks.workers.programs.turn import Turn, ending_of, submission_failure
from torch_tasks.workers.programs.turn_facts import (
    AGAIN_SECONDS,
    BELL_PAUSE,
    DONE_IDLE_SECONDS,
    IDLE_AFTER_BUSY_SECONDS,
    IDLE_SECONDS,
    MOST_ANSWERS,
    SCREEN_PAUSE,
    STRANGE_SECONDS,
    SUBMITTING_PAUSE,
    SUBMITTING_SECONDS,
    TALKING_SECONDS,
    UNCHANGED_SECONDS,
    UNDRAWN_SECONDS,
    UNKNOWN_SECONDS,
    UNREPORTED_SECONDS,
    GivenAnswers,
    TurnEnd,
    TurnFacts,
    ending_by_screen,
    is_acceptance_unnoted,
    is_answer_due,
    pause_after,
    state_of_task,
    turn_end,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOTHING, OURS, PART, MIXED, FOREIGN, UNSEEN = ComposerContent
INTENDED, STAGED, SUBMITTED, ACCEPTED, INDETERMINATE, REFUSED = SubmissionPhase
READY, WORKING, WAITING, LIMITED = AgentState.READY, AgentState.WORKING, AgentState.WAITING, AgentState.LIMITED

QUESTION = Question(text="It asks for the permission to use Bash(ls)", subject="Bash(ls)")
SHOWN = Question(text="Do you want to proceed?", choices=("Yes", "No"))


def event(kind: EventKind, seconds: float = 60, **more: Any) -> ProgramEvent:
    """It came so many seconds ago."""
    return ProgramEvent(kind, at=NOW - timedelta(seconds=seconds), origin=f"hook {kind}", **more)


def live(state: AgentState, question: Question | None = None) -> StateReading:
    return StateReading(state, "screen", "a rule", question)


BEGUN = event(EventKind.ACCEPTED)
UNHEARD = Turn()
RUNNING = Turn(accepted=BEGUN, last=BEGUN)
DONE, GAVE_UP = event(EventKind.DONE, text="all of it"), event(EventKind.FAIL)


def over(kind: EventKind, report: ProgramEvent | None = None, **more: Any) -> Turn:
    last = event(kind, **more)
    return replace(RUNNING, over=last, last=last, report=report)


def asking(seconds: float) -> Turn:
    asked = event(EventKind.QUESTION, seconds, question=QUESTION)
    return replace(RUNNING, asking=asked, last=asked)


def facts(
    turn: Turn = RUNNING, seen: StateReading | None = None, phase: SubmissionPhase = ACCEPTED, **more: Any
) -> TurnFacts:
    given = {"phase_seconds": 60.0, "idle_seconds": 0.0, **more}
    return TurnFacts(phase=phase, turn=turn, live=seen or live(WORKING), moment=NOW, **given)


# ── what the task is ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("known", "state", "source"),
    [
        # Before it is accepted: only what demands a person counts.
        (facts(UNHEARD, live(READY), INTENDED), WORKING, "submission"),
        (facts(UNHEARD, live(AgentState.UNKNOWN), SUBMITTED), WORKING, "submission"),
        (facts(UNHEARD, live(AgentState.EXITED), SUBMITTED), WORKING, "submission"),
        (facts(UNHEARD, live(WAITING), STAGED), WAITING, "screen"),
        (facts(UNHEARD, live(AgentState.LOGIN), INTENDED), AgentState.LOGIN, "screen"),
        (facts(UNHEARD, live(LIMITED), INTENDED), LIMITED, "screen"),
        # A screen without an event, of a program that reports nothing.
        (facts(UNHEARD, live(READY), reports_turns=False), READY, "screen"),
        (facts(UNHEARD, live(WORKING), reports_turns=False), WORKING, "screen"),
        (facts(UNHEARD, live(WAITING, SHOWN), reports_turns=False), WAITING, "screen"),
        # An event without a screen, and a screen that is drawn late.
        (facts(RUNNING, live(READY)), WORKING, "hooks"),
        (facts(RUNNING, live(AgentState.UNKNOWN)), WORKING, "hooks"),
        (facts(RUNNING, live(AgentState.EXITED)), WORKING, "hooks"),
        (facts(replace(RUNNING, compacting=True), live(WORKING)), AgentState.COMPACTING, "hooks"),
        (facts(RUNNING, live(LIMITED)), LIMITED, "screen"),
        (facts(RUNNING, live(AgentState.LOGIN)), AgentState.LOGIN, "screen"),
        # It is over, whatever the screen still shows.
        (facts(over(EventKind.STOPPED), live(WORKING)), READY, "hooks"),
        (facts(over(EventKind.ENDED), live(READY)), AgentState.EXITED, "hooks"),
        (facts(over(EventKind.FAILED, error="limit"), live(READY)), LIMITED, "hooks"),
        (facts(over(EventKind.FAILED, error="login"), live(READY)), AgentState.LOGIN, "hooks"),
        (facts(over(EventKind.FAILED), live(READY)), AgentState.ERROR, "hooks"),
    ],
)
def test_the_state_of_a_task_is_what_events_report_and_the_screen_demands(
    known: TurnFacts, state: AgentState, source: str
) -> None:
    reading = state_of_task(known)
    assert (reading.state, reading.source) == (state, source)


@pytest.mark.parametrize(
    ("known", "question"),
    [
        # Reported, and not drawn yet: it cannot be answered.
        (facts(asking(0.1), live(AgentState.UNKNOWN)), None),
        (facts(asking(UNDRAWN_SECONDS - 0.1), live(WAITING)), None),
        (facts(asking(UNDRAWN_SECONDS), live(WAITING)), QUESTION),
        (facts(asking(UNDRAWN_SECONDS), live(AgentState.UNKNOWN)), QUESTION),
        # Drawn as well: its choices come from the screen.
        (facts(asking(0.1), live(WAITING, SHOWN)), QUESTION.model_copy(update={"choices": SHOWN.choices})),
        # The program went on without reporting the answer.
        (facts(asking(60), live(WORKING)), None),
        (facts(asking(60), live(READY)), None),
        # Drawn only: what it is about will be reported in a moment, or never.
        (facts(RUNNING, live(WAITING, SHOWN)), None),
        (facts(RUNNING, live(WAITING, SHOWN), unreported_seconds=UNREPORTED_SECONDS), None),
        (facts(RUNNING, live(WAITING, SHOWN), unreported_seconds=UNREPORTED_SECONDS + 0.1), SHOWN),
        (facts(RUNNING, live(WAITING, SHOWN), reports_turns=False), SHOWN),
        (facts(UNHEARD, live(WAITING, SHOWN), STAGED), SHOWN),
    ],
)
def test_a_question_is_passed_on_when_it_can_be_answered(known: TurnFacts, question: Question | None) -> None:
    reading = state_of_task(known)
    assert reading.question == question
    assert reading.state is (WAITING if question else WORKING)


PERSON, OWN_TEXT, DIALOG, UNKNOWN_SCREEN = (
    Hindrance.PERSON,
    Hindrance.OWN_TEXT,
    Hindrance.DIALOG,
    Hindrance.UNKNOWN_SCREEN,
)


@pytest.mark.parametrize(
    ("phase", "content", "more", "why"),
    [
        (INTENDED, FOREIGN, {}, PERSON),  # a person's draft
        (INTENDED, UNSEEN, {}, DIALOG),
        (INTENDED, UNSEEN, {"live": live(AgentState.UNKNOWN)}, UNKNOWN_SCREEN),
        (INTENDED, OURS, {}, OWN_TEXT),  # of an earlier submission
        (INTENDED, NOTHING, {"in_use": True}, PERSON),
        (INTENDED, NOTHING, {}, None),
        (INTENDED, PART, {}, None),
        (STAGED, MIXED, {}, PERSON),
        (STAGED, OURS, {"in_use": True}, PERSON),
        (SUBMITTED, MIXED, {}, PERSON),
        (SUBMITTED, UNSEEN, {}, None),  # it may be the program's answer
        (SUBMITTED, FOREIGN, {}, None),
        (INTENDED, FOREIGN, {"phase_seconds": STRANGE_SECONDS - 0.1}, None),  # it is just being drawn
        (INTENDED, FOREIGN, {"phase_seconds": STRANGE_SECONDS}, PERSON),
        (INTENDED, None, {"in_use": True}, None),  # the pane is gone
        (ACCEPTED, FOREIGN, {}, None),
        # What no rule knows, in the middle of the task: still for a moment, or moving for long.
        (ACCEPTED, UNSEEN, {"unknown_seconds": 9.0, "unchanged_seconds": UNCHANGED_SECONDS - 0.1}, None),
        (ACCEPTED, UNSEEN, {"unknown_seconds": 9.0, "unchanged_seconds": UNCHANGED_SECONDS}, UNKNOWN_SCREEN),
        (ACCEPTED, UNSEEN, {"unknown_seconds": UNKNOWN_SECONDS}, UNKNOWN_SCREEN),
    ],
)
def test_a_person_hears_what_keeps_a_prompt_out(
    phase: SubmissionPhase, content: ComposerContent | None, more: dict[str, Any], why: Hindrance | None
) -> None:
    turn = RUNNING if phase is ACCEPTED else UNHEARD
    reading = state_of_task(replace(facts(turn, live(READY), phase, content=content), **more))
    assert (reading.state, reading.hindrance) == (WAITING if why else WORKING, why)


# ── how it ends ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("known", "end"),
    [
        (facts(UNHEARD, phase=REFUSED), TurnEnd.NOT_SUBMITTED),
        (facts(UNHEARD, phase=INDETERMINATE), TurnEnd.NOT_SUBMITTED),
        (facts(UNHEARD, live(READY), SUBMITTED, idle_seconds=100), TurnEnd.OPEN),
        # A program that reports its turns is waited for as long as its report may take.
        (facts(idle_seconds=9.9), TurnEnd.OPEN),
        (facts(idle_seconds=10), TurnEnd.SCREEN_IDLE),
        (facts(idle_seconds=None), TurnEnd.OPEN),  # the pane is gone: its host sees to that
        (facts(over(EventKind.FAILED, error="limit"), idle_seconds=100), TurnEnd.OPEN),  # it goes on after the limit
        (facts(over(EventKind.ENDED), idle_seconds=100), TurnEnd.OPEN),
        # One that does not is judged by its screen.
        (facts(reports_turns=False, idle_seconds=IDLE_AFTER_BUSY_SECONDS, busy_seen=True), TurnEnd.SCREEN_IDLE),
        (facts(reports_turns=False, idle_seconds=IDLE_AFTER_BUSY_SECONDS), TurnEnd.OPEN),
        (facts(reports_turns=False, idle_seconds=IDLE_SECONDS), TurnEnd.SCREEN_IDLE),
        # The agent itself reports the end while it goes on talking.
        (facts(replace(RUNNING, report=event(EventKind.DONE, 1)), idle_seconds=0), TurnEnd.OPEN),
        (
            facts(replace(RUNNING, report=event(EventKind.DONE, 1)), idle_seconds=DONE_IDLE_SECONDS),
            TurnEnd.AGENT_REPORTED,
        ),
        (facts(replace(RUNNING, report=event(EventKind.DONE, TALKING_SECONDS)), idle_seconds=0), TurnEnd.OPEN),
        (
            facts(replace(RUNNING, report=event(EventKind.FAIL, TALKING_SECONDS + 0.1)), idle_seconds=0),
            TurnEnd.AGENT_REPORTED,
        ),
    ],
)
def test_a_turn_is_over_without_an_event(known: TurnFacts, end: TurnEnd) -> None:
    assert turn_end(known) is end


@pytest.mark.parametrize(
    ("turn", "evidence", "failure", "answer"),
    [
        (RUNNING, None, None, ""),
        (asking(60), None, None, ""),
        (replace(RUNNING, report=DONE), None, None, ""),  # it may go on talking
        (over(EventKind.STOPPED, text="Here."), "stop_event", None, "Here."),
        (over(EventKind.STOPPED, DONE, text="Here."), "done", None, "all of it"),
        (over(EventKind.STOPPED, GAVE_UP, text="No."), "fail", FailureKind.AGENT_FAILED, "No."),
        (over(EventKind.FAILED), "stop_event", FailureKind.AGENT_FAILED, ""),
        (over(EventKind.FAILED, error="overloaded"), "stop_event", FailureKind.OVERLOADED, ""),
        (over(EventKind.FAILED, error="limit"), None, None, ""),
        (over(EventKind.FAILED, error="login"), None, None, ""),
        (over(EventKind.FAILED, DONE, error="limit"), "done", None, "all of it"),
        (over(EventKind.INTERRUPTED, text="Half."), "stop_event", FailureKind.AGENT_FAILED, "Half."),
        (over(EventKind.INTERRUPTED, DONE), "done", None, "all of it"),
        (over(EventKind.ENDED), None, None, ""),  # the pane shows what became of the program
    ],
)
def test_what_events_report_ends_the_task(
    turn: Turn, evidence: str | None, failure: FailureKind | None, answer: str
) -> None:
    ended = ending_of(turn)
    if evidence is None:
        assert ended is None
        return
    assert ended is not None
    ending, text = ended
    assert (ending.evidence.kind, ending.failure and ending.failure.kind, text) == (evidence, failure, answer)
    assert ending.evidence.passed is (failure is None)


def test_a_turn_quicker_than_one_look_is_noted_as_accepted_before_it_ends() -> None:
    quick = over(EventKind.STOPPED, text="4")
    assert is_acceptance_unnoted(facts(quick, live(READY), SUBMITTED))
    assert is_acceptance_unnoted(facts(quick, live(READY), INDETERMINATE))
    assert not is_acceptance_unnoted(facts(quick, live(READY), ACCEPTED))
    assert not is_acceptance_unnoted(facts(UNHEARD, live(READY), SUBMITTED))


@pytest.mark.parametrize(
    ("reports_turns", "busy_seen", "answer", "is_success"),
    [
        (False, True, "", True),
        (False, False, "an answer", True),
        (False, False, "", False),
        (True, True, "an answer", False),  # it would have reported a success
    ],
)
def test_the_screen_alone_proves_a_success_only_of_a_program_that_reports_none(
    reports_turns: bool, busy_seen: bool, answer: str, is_success: bool
) -> None:
    ending = ending_by_screen(facts(reports_turns=reports_turns, busy_seen=busy_seen), answer)
    assert (ending.failure is None, ending.evidence.passed) == (is_success, is_success)


@pytest.mark.parametrize(
    ("phase", "kind"), [(REFUSED, FailureKind.AGENT_UNAVAILABLE), (INDETERMINATE, FailureKind.INDETERMINATE)]
)
def test_a_prompt_that_the_program_does_not_have_fails_the_task(phase: SubmissionPhase, kind: FailureKind) -> None:
    step = SubmissionStep(phase=phase, at=NOW, evidence="it took none of 4 pastes")
    ending = submission_failure(Submission(tag="task t-1", mark="", steps=(step,)))
    assert ending.failure is not None
    assert ending.failure.kind is kind
    assert ending.evidence == Evidence(kind="submission", detail="it took none of 4 pastes", passed=False)


# ── the policy's answers, and the next look ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "seen", "is_due"),
    [
        (None, (WAITING, WAITING), True),
        (None, (WAITING, AgentState.UNKNOWN), True),
        (None, (WORKING, WAITING), True),
        (None, (WORKING, AgentState.UNKNOWN), False),  # its dialog is not drawn: the keys would go elsewhere
        (GivenAnswers(1, 100), (WAITING, WAITING), False),
        (GivenAnswers(1, 100 - AGAIN_SECONDS), (WAITING, WAITING), True),  # the keys were lost
        (GivenAnswers(1, 100 - AGAIN_SECONDS), (WORKING, READY), False),
        (GivenAnswers(MOST_ANSWERS, 0), (WAITING, WAITING), False),  # a person has to see to it
    ],
)
def test_the_policy_answers_a_question_that_is_shown(
    given: GivenAnswers | None, seen: tuple[AgentState, AgentState], is_due: bool
) -> None:
    assert is_answer_due(given, 100, map(live, seen)) is is_due


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        (facts(UNHEARD, phase=INTENDED, phase_seconds=0), SUBMITTING_PAUSE),
        (facts(UNHEARD, phase=SUBMITTED, phase_seconds=SUBMITTING_SECONDS), SCREEN_PAUSE),
        (facts(), BELL_PAUSE),
        (facts(reports_turns=False), SCREEN_PAUSE),
        (facts(replace(RUNNING, report=DONE)), SCREEN_PAUSE),
        (facts(asking(0.1), live(AgentState.UNKNOWN)), SCREEN_PAUSE),
        (facts(asking(UNDRAWN_SECONDS), live(WAITING, SHOWN)), BELL_PAUSE),
        (facts(RUNNING, live(WAITING, SHOWN)), SCREEN_PAUSE),
    ],
)
def test_the_next_look_comes_when_there_may_be_news(known: TurnFacts, seconds: float) -> None:
    assert pause_after(known) == seconds
