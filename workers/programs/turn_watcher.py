"""Watches a submitted task: what the program does, what it asks, when its turn is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Evidence, FailureKind, Question, TaskSpec
from torch_tasks.workers.host.journal import AttemptFolder
from torch_tasks.workers.programs.events import EventKind
from torch_tasks.workers.programs.kind import TYPING, Ending, Progress, StateReading
from torch_tasks.workers.programs.questions import decide_permission, merge_question, understand_answer
from torch_tasks.workers.programs.screen import ComposerContent, answer_on
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.programs.turn import Turn, failed_ending, reported_ending, submission_failure
from torch_tasks.workers.tmux.pane import AgentPane

if TYPE_CHECKING:
    from torch_tasks.workers.programs.coding import CodingAgent

#: Until the next look: while the prompt is on its way, while only the screen tells, and while the bell does.
_SUBMITTING, _BY_SCREEN, _BY_BELL = 0.02, 0.25, 2.0
#: An idle screen without a change for so long ends the turn of a program that was seen busy, or was not.
_IDLE_AFTER_BUSY, _IDLE_UNSEEN = 1.0, 3.0
#: How long a paste may look strange.
_TYPING = 2.0
#: How long an event may come after what the screen shows.
_UNTOLD = 1.0
#: How long the screen may come after what an event tells: until then a question is nobody's to answer.
_DRAWN = 2.0
#: How long an agent that reported its end may go on talking.
_TALKING_SECONDS = 20.0
_HISTORY = 3000
_AGAIN_SECONDS = 3.0
#: How long a program may take to go on after the reason for a denial.
_REASON_SECONDS = 10.0
_TRIES = 3


@dataclass
class _IdleClock:
    """What the pane of one run shows, and since when."""

    run: AttemptFolder
    busy_seen: bool = False
    above: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class _Asked:
    """One question of one task; it may be asked again."""

    run: Path
    question: Question | None
    at: datetime | None


class TurnWatcher:
    """One agent's running task, look by look. What it remembers between looks, the next worker finds out again."""

    def __init__(self, kind: CodingAgent) -> None:
        self._kind = kind
        self._still: _IdleClock | None = None
        self._asked: _Asked | None = None
        self._answers = 0
        self._answered_at = 0.0
        self._reason_given_at = float("-inf")
        self._asks_since: float | None = None
        self.pause = _SUBMITTING

    def progress(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec, submission: Submission) -> Progress:
        """How far the task is."""
        turn = self._kind.turn(submission)
        view = self._kind.read_screen(pane)
        live = view.best if view else StateReading(AgentState.EXITED, "pane")
        reading = self._patient(_reading(turn, live, submission), turn)
        facts = []
        if view and reading.state is AgentState.WORKING and (why := self._hindrance(submission, view, run)):
            reading = StateReading(AgentState.WAITING, "screen", "input line", hindrance=why)
        if view and reading.question:
            told_at = turn.asking.at if turn.asking else None
            # How a dialog looks changes while it is answered: what an event told is known by that.
            asked = _Asked(run.folder, None if told_at else reading.question, told_at)
            facts += self._by_policy(pane, asked, reading.question, spec, view)
            if asked == self._asked and self._answers < _TRIES:
                reading = StateReading(AgentState.WORKING, "policy", "answered")
        else:
            self._asked = None
        submission, untold = submission.publish(run, turn.notes)
        ending = self._ending(pane, run, submission, turn, view)
        self.pause = self._pause(submission, turn)
        return Progress(reading, ending, (*untold, *facts))

    def _patient(self, reading: StateReading, turn: Turn) -> StateReading:
        """A question that only the screen shows: what it is about will be told in a moment, if the program tells."""
        if (
            reading.state is not AgentState.WAITING
            or turn.asking
            or turn.accepted is None
            or not self._kind.reports_turns
        ):
            self._asks_since = None
            return reading
        self._asks_since = self._asks_since or time.monotonic()
        told_by_now = time.monotonic() - self._asks_since > _UNTOLD
        return reading if told_by_now else StateReading(AgentState.WORKING, "screen", "asks something")

    def _hindrance(self, submission: Submission, view: ScreenReading, run: AttemptFolder) -> str | None:
        """What keeps the prompt from being submitted, if a person has to see to it."""
        if (
            submission.phase not in (SubmissionPhase.INTENDED, SubmissionPhase.STAGED, SubmissionPhase.SUBMITTED)
            or submission.seconds_in_phase < _TYPING
        ):
            return None
        holds = view.composer.holds(submission.text(run), self._kind.config.composer.placeholder)
        if holds is ComposerContent.MIXED:
            return TYPING
        if submission.phase is SubmissionPhase.SUBMITTED:
            return None
        if holds is ComposerContent.UNSEEN:
            return "something covers the input line of the agent's program"
        return TYPING if holds is ComposerContent.FOREIGN or view.screen.in_use else None

    def _pause(self, submission: Submission, turn: Turn) -> float:
        if submission.phase is not SubmissionPhase.ACCEPTED:
            return _SUBMITTING if submission.seconds_in_phase < 5 else _BY_SCREEN
        if turn.asking and (now() - turn.asking.at).total_seconds() < _DRAWN:
            return _BY_SCREEN  # its dialog comes after the bell
        return _BY_BELL if self._kind.reports_turns and not turn.report and not self._asks_since else _BY_SCREEN

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _ending(
        self, pane: AgentPane, run: AttemptFolder, submission: Submission, turn: Turn, view: ScreenReading | None
    ) -> Ending | None:
        if turn.accepted and submission.phase not in (SubmissionPhase.ACCEPTED, SubmissionPhase.REFUSED):
            return None  # both came since the last step: that it was accepted is told first
        if stored := self._kind.ending(run):
            return stored
        if nowhere := submission_failure(submission):
            return self._kind.end(run, turn, nowhere, "")
        if view is None or submission.phase is not SubmissionPhase.ACCEPTED or turn.over:
            return None
        idle = self._idle(run, view)
        if turn.report:
            talked = (now() - turn.report.at).total_seconds()
            return self._kind.end(run, turn, *reported_ending(turn)) if idle >= 1 or talked > _TALKING_SECONDS else None
        if idle < self._patience():
            return None
        end = submission.placeholder or submission.text(run)[-40:]
        answer = self._answer_on_screen(pane, view, end)
        return self._kind.end(run, turn, self._silent_ending(answer), answer)

    def _patience(self) -> float:
        assert self._still
        if self._kind.reports_turns:  # its word for it may be late
            return self._kind.config.submit.trace_seconds
        return _IDLE_AFTER_BUSY if self._still.busy_seen else _IDLE_UNSEEN

    def _silent_ending(self, answer: str) -> Ending:
        assert self._still
        if self._kind.reports_turns or not (answer or self._still.busy_seen):
            message = "its turn ended without an answer: interrupted in its pane, or a permission was denied"
            return failed_ending(
                FailureKind.AGENT_FAILED, message, Evidence(kind="screen", detail=message, passed=False)
            )
        return Ending(Evidence(kind="screen", detail="the program was busy and is idle again", passed=True))

    def _idle(self, run: AttemptFolder, view: ScreenReading) -> float:
        """Seconds for which the program has been idle, and nothing above its composer has changed."""
        moment = time.monotonic()
        if self._still is None or self._still.run.folder != run.folder:
            self._still = _IdleClock(run, since=moment)
        still = self._still
        if view.best.state is AgentState.WORKING:
            still.busy_seen = True
        if view.best.state is not AgentState.READY or view.above != still.above:
            still.above, still.since = view.above, moment
        return moment - still.since

    def _answer_on_screen(self, pane: AgentPane, view: ScreenReading, end: str) -> str:
        history = pane.screen(_HISTORY).split("\n")
        below = len(view.screen.text.split("\n")) - view.composer.top
        above = "\n".join(history[: len(history) - below] if below > 0 else history)
        return answer_on(above, end, self._kind.config.answer)

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _by_policy(
        self, pane: AgentPane, asked: _Asked, question: Question, spec: TaskSpec, view: ScreenReading
    ) -> list[str]:
        """Answer what the policy answers, once its dialog is to be seen; returns what was done."""
        decision = decide_permission(question, spec.permissions, self._kind.config.permissions)
        if decision is None or AgentState.WAITING not in (view.best.state, view.by_screen.state):
            return []
        again = asked == self._asked
        if again and (time.monotonic() - self._answered_at < _AGAIN_SECONDS or self._answers >= _TRIES):
            return []
        self._asked, self._answered_at = asked, time.monotonic()
        self._answers = self._answers + 1 if again else 1
        allowed, why = decision
        self._allow_or_deny(pane, question, allowed=allowed)
        return [] if again else [f"{'allowed' if allowed else 'denied'} {question.subject} by {why}"]

    def _allow_or_deny(self, pane: AgentPane, question: Question, *, allowed: bool) -> None:
        self._kind.permit(pane, question, allowed=allowed)
        if not allowed and "{text}" in self._kind.config.answers.deny:
            self._reason_given_at = time.monotonic()

    def goes_on(self, turn: Turn) -> bool:
        """The program takes a denial for an interruption, and goes on with the reason as its next prompt."""
        interrupted = turn.over is not None and turn.over.kind is EventKind.INTERRUPTED
        return interrupted and time.monotonic() - self._reason_given_at < _REASON_SECONDS

    def answer(self, pane: AgentPane, question: Question, said: str) -> bool:
        """Give a person's answer: the number of a choice, a choice's words, ``allow`` or ``deny``, or a text."""
        question = question.model_copy(update={"choices": question.choices or self._choices_seen(pane)})
        text_choice = self._kind.config.answers.text_choice
        word = said.strip().casefold()
        reply = understand_answer(said, question, text_choice)
        if word in ("allow", "deny") and not (reply and reply.text):
            self._allow_or_deny(pane, question, allowed=word == "allow")
        elif reply:
            self._kind.choose(pane, question, reply)
        else:
            return False
        self.pause = _SUBMITTING  # what it asks next is on the screen
        return True

    def _choices_seen(self, pane: AgentPane) -> tuple[str, ...]:
        """Hooks tell what is asked, and often not what can be answered."""
        view = self._kind.read_screen(pane)
        return view.by_screen.question.choices if view and view.by_screen.question else ()


def _reading(turn: Turn, live: StateReading, submission: Submission) -> StateReading:
    """What the agent does, from what was told and what is to be seen."""
    if submission.phase is not SubmissionPhase.ACCEPTED:
        asks = live.state in (AgentState.WAITING, AgentState.LOGIN, AgentState.LIMITED)
        return live if asks else StateReading(AgentState.WORKING, "submission", submission.phase)
    said = turn.reading
    if said is None or turn.over:
        return said or live
    if turn.asking:
        # Not every program tells that its question was answered.
        if live.state in (AgentState.WORKING, AgentState.COMPACTING, AgentState.READY):
            return StateReading(AgentState.WORKING, live.source, live.rule)
        if not live.question and (now() - turn.asking.at).total_seconds() < _DRAWN:
            return StateReading(AgentState.WORKING, said.source, f"{said.rule}, nothing on the screen yet")
        return replace(said, question=merge_question(turn.asking, live.question))
    if live.state in (AgentState.WAITING, AgentState.LIMITED, AgentState.LOGIN, AgentState.COMPACTING):
        return live
    return said
