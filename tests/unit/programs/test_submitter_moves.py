"""What is due for a submission, by what was done so far, what is reported, and what the pane shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.programs.config import SubmitConfig
from torch_tasks.workers.programs.screen import ComposerContent
from torch_tasks.workers.programs.submission import Probe, Submission, SubmissionPhase, SubmissionStep
from torch_tasks.workers.programs.submission_moves import (
    DEAF_SECONDS,
    MOST_ENTERS,
    MOST_PASTES,
    PASTE_SECONDS,
    Move,
    Seen,
    SubmitRules,
    next_move,
)
from torch_tasks.workers.programs.submitter import has_changed

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOTHING, OURS, PART, MIXED, FOREIGN, UNSEEN = ComposerContent
READY, WORKING = AgentState.READY, AgentState.WORKING
INTENDED, STAGED, SUBMITTED, ACCEPTED, INDETERMINATE, REFUSED = SubmissionPhase

HOOKED = SubmitRules(SubmitConfig(again_seconds=1, trace_seconds=10), reports_turns=True)
SILENT = replace(HOOKED, reports_turns=False)
SETTLING = replace(HOOKED, config=SubmitConfig(settle_seconds=0.5))
BESIDE = replace(HOOKED, while_working=True)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def at(phase: SubmissionPhase, seconds: float = 0, **done: object) -> Submission:
    """A submission that reached the phase so long ago."""
    step = SubmissionStep(phase=phase, at=ago(seconds), evidence="")
    return Submission.model_validate({"tag": "task t-1", "mark": "", "steps": (step,), **done})


def pasted(seconds: float, times: int = 1) -> Submission:
    return at(INTENDED, seconds, pastes=times, pasted_at=ago(seconds))


def entered(seconds: float, times: int = 1, **done: object) -> Submission:
    return at(SUBMITTED, seconds, pastes=1, enters=times, entered_at=ago(seconds), **done)


def shows(content: ComposerContent, state: AgentState = READY, **more: object) -> Seen:
    return Seen(content, state, **more)  # type: ignore[arg-type]


def move(submission: Submission, seen: Seen | None, rules: SubmitRules, reported: str | None = None) -> Move:
    return next_move(submission, reported, seen, rules, NOW).move


@pytest.mark.parametrize(
    ("seen", "rules", "due"),
    [
        (shows(NOTHING), HOOKED, Move.PASTE),
        (shows(NOTHING), SILENT, Move.PASTE),
        (shows(NOTHING, WORKING), HOOKED, Move.WAIT),  # a task waits until the program is free
        (shows(NOTHING, WORKING), BESIDE, Move.PASTE),  # a message need not
        (shows(NOTHING, AgentState.WAITING), BESIDE, Move.WAIT),
        (shows(NOTHING, AgentState.UNKNOWN), HOOKED, Move.WAIT),  # no rule fits: it is not safe to type
        (shows(NOTHING, AgentState.LIMITED), HOOKED, Move.WAIT),
        (shows(NOTHING, in_use=True), HOOKED, Move.WAIT),  # what a person types may not be drawn yet
        (shows(FOREIGN), HOOKED, Move.WAIT),  # a person's draft
        (shows(UNSEEN), HOOKED, Move.WAIT),  # a dialog covers it, or it is drawn late
        (shows(OURS), HOOKED, Move.WAIT),  # not pasted by this submission
        (None, HOOKED, Move.WAIT),  # the pane is gone
    ],
)
def test_a_text_is_pasted_only_into_an_empty_composer_of_a_program_that_takes_it(
    seen: Seen | None, rules: SubmitRules, due: Move
) -> None:
    assert move(at(INTENDED), seen, rules) is due


@pytest.mark.parametrize(
    ("submission", "seen", "rules", "due"),
    [
        (pasted(0.1), shows(OURS), HOOKED, Move.STAGE_AND_ENTER),
        (pasted(0.1), shows(OURS), SETTLING, Move.NOTE_STAGED),
        (pasted(60), shows(OURS), HOOKED, Move.STAGE_AND_ENTER),  # drawn late
        (pasted(0.1), shows(OURS, WORKING), HOOKED, Move.STAGE_AND_ENTER),
        (pasted(0.1), shows(OURS, in_use=True), HOOKED, Move.WAIT),
        (pasted(0.1), shows(NOTHING), HOOKED, Move.WAIT),  # not drawn yet
        (pasted(PASTE_SECONDS - 0.1), shows(NOTHING), HOOKED, Move.WAIT),
        (pasted(PASTE_SECONDS), shows(NOTHING), HOOKED, Move.PROBE),  # it may only be drawn late
        (pasted(PASTE_SECONDS), shows(NOTHING, AgentState.UNKNOWN), HOOKED, Move.WAIT),
        (pasted(0.1, MOST_PASTES), shows(NOTHING), HOOKED, Move.WAIT),
        (pasted(0.1), shows(PART), HOOKED, Move.WAIT),  # it is being drawn
        (pasted(PASTE_SECONDS), shows(PART), HOOKED, Move.TAKE_BACK),
        (pasted(PASTE_SECONDS), shows(MIXED), HOOKED, Move.WAIT),  # a person is typing into it
        (pasted(PASTE_SECONDS), shows(FOREIGN), HOOKED, Move.WAIT),
        (pasted(PASTE_SECONDS), shows(UNSEEN), HOOKED, Move.WAIT),
        (pasted(PASTE_SECONDS), shows(NOTHING, in_use=True), HOOKED, Move.WAIT),
        (pasted(PASTE_SECONDS), None, HOOKED, Move.WAIT),
    ],
)
def test_a_paste_is_submitted_when_it_is_seen_whole_and_never_repeated_unseen(
    submission: Submission, seen: Seen | None, rules: SubmitRules, due: Move
) -> None:
    assert move(submission, seen, rules) is due


def probed(probe: Probe, seconds: float = 1, times: int = 1) -> Submission:
    """A key was typed behind the paste so many seconds ago."""
    done = {"pastes": times, "pasted_at": ago(seconds + PASTE_SECONDS), "probe": probe, "probed_at": ago(seconds)}
    return at(INTENDED, seconds + PASTE_SECONDS, **done)


ALONE, BEHIND = {"probe": Probe.ALONE}, {"probe": Probe.BEHIND}


@pytest.mark.parametrize(
    ("submission", "seen", "due"),
    [
        (probed(Probe.TYPED), shows(NOTHING), Move.WAIT),
        (probed(Probe.TYPED), shows(OURS), Move.WAIT),  # the key is still to come: Enter would submit it with the text
        (probed(Probe.TYPED), shows(NOTHING, **ALONE), Move.REMOVE_PROBE),
        (probed(Probe.TYPED), shows(OURS, **BEHIND), Move.REMOVE_PROBE),
        (probed(Probe.TYPED), shows(OURS, in_use=True, **BEHIND), Move.WAIT),
        (probed(Probe.TYPED, DEAF_SECONDS), shows(NOTHING), Move.END_AND_REFUSE),
        (probed(Probe.TYPED, DEAF_SECONDS), shows(OURS), Move.END_AND_REFUSE),
        (probed(Probe.TYPED, DEAF_SECONDS), shows(FOREIGN), Move.WAIT),  # a person's draft
        # The key came alone: the paste is lost.
        (probed(Probe.ALONE), shows(NOTHING, **ALONE), Move.WAIT),
        (probed(Probe.ALONE), shows(NOTHING), Move.PASTE),
        (probed(Probe.ALONE, times=MOST_PASTES - 1), shows(NOTHING), Move.PASTE),
        (probed(Probe.ALONE, times=MOST_PASTES), shows(NOTHING), Move.REFUSE),
        # It came behind the text.
        (probed(Probe.BEHIND), shows(OURS, **BEHIND), Move.WAIT),
        (probed(Probe.BEHIND), shows(OURS), Move.STAGE_AND_ENTER),
        (probed(Probe.BEHIND), shows(PART), Move.TAKE_BACK),
        (probed(Probe.BEHIND), shows(NOTHING), Move.WAIT),
        (probed(Probe.BEHIND, DEAF_SECONDS), shows(NOTHING), Move.END_AND_REFUSE),
    ],
)
def test_a_key_that_is_typed_behind_a_paste_shows_what_became_of_it(
    submission: Submission, seen: Seen, due: Move
) -> None:
    assert move(submission, seen, HOOKED) is due


def vanished(seconds: float) -> Submission:
    """The text stood in the composer, and was gone before Enter was pressed."""
    staged, again = (SubmissionStep(phase=phase, at=ago(seconds), evidence="") for phase in (STAGED, INTENDED))
    return at(INTENDED, 60, pastes=1, pasted_at=ago(seconds + 1)).model_copy(update={"steps": (staged, again)})


@pytest.mark.parametrize(
    ("seconds", "seen", "rules", "due"),
    [
        (5, shows(NOTHING, above_changed=False), HOOKED, Move.PASTE),  # a person deleted it
        (5, shows(NOTHING, WORKING), HOOKED, Move.ASSUME_ACCEPTED),  # a person submitted it
        (5, shows(NOTHING), SILENT, Move.ASSUME_ACCEPTED),
        (5, shows(NOTHING), HOOKED, Move.WAIT),
        (10, shows(NOTHING), HOOKED, Move.GIVE_UP),
    ],
)
def test_a_text_that_somebody_else_may_have_submitted_is_not_pasted_again(
    seconds: float, seen: Seen, rules: SubmitRules, due: Move
) -> None:
    assert move(vanished(seconds), seen, rules) is due


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ("a\nb\n", "a\nb", False),
        ("a\nb", "x\na\n\nb", False),  # the composer is smaller now
        ("x\na\nb", "a\nb", False),
        ("a\nb", "a\nb\nc", True),
        ("", "an answer", True),
        ("", "", False),
    ],
)
def test_more_or_fewer_rows_of_the_same_are_no_change(before: str, now: str, changed: bool) -> None:
    assert has_changed(before, now) is changed


@pytest.mark.parametrize(
    ("seconds", "seen", "due"),
    [
        (0.4, shows(OURS), Move.WAIT),
        (0.5, shows(OURS), Move.ENTER),
        (0.5, shows(OURS, in_use=True), Move.WAIT),
        (0.0, shows(MIXED), Move.STAGE_AGAIN),
        (0.5, shows(NOTHING), Move.STAGE_AGAIN),
        (0.5, shows(UNSEEN), Move.STAGE_AGAIN),
        (0.5, None, Move.WAIT),
    ],
)
def test_enter_is_pressed_on_nothing_but_the_settled_text(seconds: float, seen: Seen | None, due: Move) -> None:
    assert move(at(STAGED, seconds, pastes=1), seen, SETTLING) is due


@pytest.mark.parametrize(
    ("submission", "seen", "rules", "due"),
    [
        # Enter was lost: it is pressed again, each time after twice as long, and not without an end.
        (entered(0.9), shows(OURS), HOOKED, Move.WAIT),
        (entered(1), shows(OURS), HOOKED, Move.ENTER),
        (entered(1.9, 2), shows(OURS), HOOKED, Move.WAIT),
        (entered(2, 2), shows(OURS), HOOKED, Move.ENTER),
        (entered(1), shows(OURS, in_use=True), HOOKED, Move.WAIT),
        # Not a second one behind one that is not read yet: a program that reads both at once may take the text twice.
        (entered(DEAF_SECONDS - 0.1), shows(OURS, unread=True), HOOKED, Move.WAIT),
        (entered(DEAF_SECONDS), shows(OURS, unread=True), HOOKED, Move.END_AND_REFUSE),
        (entered(63, MOST_ENTERS), shows(OURS), HOOKED, Move.WAIT),
        (entered(64, MOST_ENTERS), shows(OURS), HOOKED, Move.CLEAR_AND_REFUSE),
        # A person types behind it, or a dialog came up.
        (entered(60), shows(MIXED), HOOKED, Move.WAIT),
        (entered(60), shows(UNSEEN), HOOKED, Move.WAIT),
        (entered(60), shows(UNSEEN), SILENT, Move.WAIT),
        # The screen shows it at once; a program that reports its turns is given time to report it.
        (entered(0.1), shows(NOTHING, prompt_above=True), SILENT, Move.ASSUME_ACCEPTED),
        (entered(0.1), shows(UNSEEN, prompt_above=True), SILENT, Move.ASSUME_ACCEPTED),
        (entered(0.1), shows(NOTHING, placeholder_above="[Pasted]"), SILENT, Move.ASSUME_ACCEPTED),
        (entered(0.1), shows(NOTHING, WORKING), SILENT, Move.ASSUME_ACCEPTED),
        (entered(0.1), shows(NOTHING, AgentState.COMPACTING), SILENT, Move.ASSUME_ACCEPTED),
        (entered(9.9), shows(NOTHING, prompt_above=True), HOOKED, Move.WAIT),
        (entered(10), shows(NOTHING, prompt_above=True), HOOKED, Move.ASSUME_ACCEPTED),
        (entered(0.1), shows(NOTHING, WORKING), BESIDE, Move.ASSUME_ACCEPTED),  # reported when the program comes to it
        # It left no trace.
        (entered(9.9), shows(NOTHING, above_changed=False), SILENT, Move.WAIT),
        (entered(0.1), shows(NOTHING), SILENT, Move.ASSUME_ACCEPTED),  # a turn quicker than one look
        (entered(10), shows(NOTHING, above_changed=False), SILENT, Move.GIVE_UP),
        (entered(10), shows(FOREIGN), HOOKED, Move.GIVE_UP),
        (entered(10), shows(NOTHING), HOOKED, Move.GIVE_UP),
        (entered(10), shows(NOTHING, above_changed=False), HOOKED, Move.PASTE_ANEW),
        (entered(10), shows(NOTHING, AgentState.UNKNOWN, above_changed=False), HOOKED, Move.GIVE_UP),
        (entered(10, pasted_anew=True), shows(NOTHING, above_changed=False), HOOKED, Move.GIVE_UP),
        (entered(60), None, HOOKED, Move.WAIT),
    ],
)
def test_a_submitted_text_is_pressed_on_awaited_or_given_up(
    submission: Submission, seen: Seen | None, rules: SubmitRules, due: Move
) -> None:
    assert move(submission, seen, rules) is due


@pytest.mark.parametrize(
    ("submission", "due"),
    [
        (at(INTENDED), Move.ACCEPT),  # a worker was killed after Enter, before it could note it
        (pasted(0.1), Move.ACCEPT),
        (at(STAGED), Move.ACCEPT),
        (entered(0.1), Move.ACCEPT),
        (at(INDETERMINATE), Move.ACCEPT),  # the report came late
        (at(ACCEPTED), Move.WAIT),
        (at(REFUSED), Move.WAIT),
    ],
)
@pytest.mark.parametrize("seen", [None, shows(OURS), shows(FOREIGN, WORKING), shows(UNSEEN)])
def test_what_the_program_reports_decides_whatever_the_screen_shows(
    submission: Submission, due: Move, seen: Seen | None
) -> None:
    decision = next_move(submission, "hook UserPromptSubmit: it has the whole prompt", seen, HOOKED, NOW)
    assert decision.move is due
    if due is Move.ACCEPT:
        assert decision.evidence == "hook UserPromptSubmit: it has the whole prompt"


@pytest.mark.parametrize("phase", [ACCEPTED, REFUSED, INDETERMINATE])
@pytest.mark.parametrize("content", list(ComposerContent))
def test_nothing_is_typed_once_it_is_settled(phase: SubmissionPhase, content: ComposerContent) -> None:
    assert move(at(phase, 60, pastes=1, enters=1, entered_at=ago(60)), shows(content), HOOKED) is Move.WAIT


PHASES = {
    Move.ACCEPT: ACCEPTED,
    Move.ASSUME_ACCEPTED: ACCEPTED,
    Move.STAGE_AGAIN: INTENDED,
    Move.PASTE_ANEW: INTENDED,
    Move.NOTE_STAGED: STAGED,
    Move.STAGE_AND_ENTER: STAGED,
    Move.ENTER: SUBMITTED,
    Move.REFUSE: REFUSED,
    Move.CLEAR_AND_REFUSE: REFUSED,
    Move.GIVE_UP: INDETERMINATE,
}


@pytest.mark.parametrize("rules", [HOOKED, SILENT, SETTLING, BESIDE])
@pytest.mark.parametrize("seconds", [0.1, 5, 100])
@pytest.mark.parametrize("times", [0, 1, 2, 9])
def test_every_move_is_a_legal_step(rules: SubmitRules, seconds: float, times: int) -> None:
    for phase in SubmissionPhase:
        done = {"pastes": times, "pasted_at": ago(seconds), "enters": times, "entered_at": ago(seconds)}
        submission = at(phase, seconds, **done)
        for content in ComposerContent:
            for state in (READY, WORKING, AgentState.WAITING):
                for reported in (None, "it has it"):
                    due = move(submission, shows(content, state, above_changed=False), rules, reported)
                    assert due not in PHASES or PHASES[due] in phase.may_become, (phase, content, state, due)


def test_a_phase_that_cannot_follow_is_refused() -> None:
    with pytest.raises(AssertionError, match="a submission that is accepted cannot become intended"):
        at(ACCEPTED).with_step(INTENDED, "")
