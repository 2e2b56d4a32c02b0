"""Watches a submitted task: gathers the facts of its turn, answers by the policy, and stores how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Fact, Question, TaskSpec
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.programs.answering import Answered
from torch_tasks.workers.programs.config import KindConfig
from torch_tasks.workers.programs.events import EventKind
from torch_tasks.workers.programs.kind import ProgramEnding, Progress, StateReading
from torch_tasks.workers.programs.lasting import LastingChanges
from torch_tasks.workers.programs.pane_program import run_of
from torch_tasks.workers.programs.questions import ChosenAnswer, decide_permission, understand_answer
from torch_tasks.workers.programs.screen import answer_on, last_words
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.programs.submitter import without_probe
from torch_tasks.workers.programs.turn import Turn, reported_ending, submission_failure
from torch_tasks.workers.programs.turn_facts import (
    MOST_ANSWERS,
    STRANGE_SECONDS,
    SUBMITTING_PAUSE,
    GivenAnswers,
    TurnEnd,
    TurnFacts,
    ending_by_restart,
    ending_by_screen,
    is_acceptance_unnoted,
    is_answer_due,
    is_unreported_question,
    pause_after,
    state_of_task,
    turn_end,
)
from torch_tasks.workers.tmux.pane import AgentPane

#: How long a program may take to go on after it got the reason for a denial.
_REASON_SECONDS = 10.0


@dataclass(frozen=True)
class _Asked:
    """One question of one task; it may be asked again."""

    run: Path
    question: Question | None
    at: datetime | None


class WatchedProgram(Protocol):
    """What the watcher needs of an agent's program."""

    config: KindConfig
    reports_turns: bool

    def turn(self, submission: Submission) -> Turn:
        """What events report since the prompt was submitted."""

    def read_screen(self, pane: AgentPane) -> ScreenReading | None:
        """The pane as it is now; None if it is gone."""

    def ending(self, run: AttemptFolder) -> ProgramEnding | None:
        """How the task ended, if that is stored or events report it."""

    def end(self, run: AttemptFolder, turn: Turn, ending: ProgramEnding, answer: str) -> ProgramEnding:
        """Store how the task ended."""

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> Answered:
        """Give this once, or refuse, the permission that is asked for."""

    def choose(self, pane: AgentPane, question: Question, reply: ChosenAnswer) -> Answered:
        """Give a person's answer to what is asked."""

    @property
    def lasting(self) -> LastingChanges:
        """What choices changed in the program for later."""


@dataclass
class _IdleClock:
    """Measures how long the pane of one attempt has shown the same."""

    folder: Path
    busy_seen: bool = False
    above: str = ""
    since: float = 0.0

    def look(self, view: ScreenReading) -> float:
        """Seconds for which the program has been idle and nothing above its composer has changed."""
        moment = time.monotonic()
        if view.best.state is AgentState.WORKING:
            self.busy_seen = True
        if view.best.state is not AgentState.READY or view.above != self.above:
            self.above, self.since = view.above, moment
        return moment - self.since


@dataclass
class _UnknownScreen:
    """Measures how long the pane has shown what no rule knows, and how long that has been the same."""

    text: str = ""
    since: float | None = None
    unchanged_since: float = 0.0

    def look(self, view: ScreenReading | None) -> tuple[float, float]:
        """Both in seconds; 0 if the screen is a known one."""
        if view is None or view.best.state is not AgentState.UNKNOWN:
            self.since = None
            return 0.0, 0.0
        moment = time.monotonic()
        if self.since is None or view.screen.text != self.text:
            self.text, self.unchanged_since = view.screen.text, moment
        self.since = self.since or moment
        return moment - self.since, moment - self.unchanged_since


def _has_started_anew(pane: AgentPane, submission: Submission) -> bool:
    """Whether the program in the pane is another run than the one that got the prompt."""
    look = pane.look()
    return look is not None and bool(submission.program) and run_of(look) not in ("", submission.program)


class TurnWatcher:
    """Watches one agent's task, look by look. The next worker needs nothing of what this one remembers."""

    def __init__(self, program: WatchedProgram) -> None:
        self._program = program
        self._idle: _IdleClock | None = None
        self._unknown = _UnknownScreen()
        self._asked: _Asked | None = None
        self._given: GivenAnswers | None = None
        self._reason_given_at = float("-inf")
        self._unreported_since: float | None = None
        self.pause = SUBMITTING_PAUSE

    def progress(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec, submission: Submission) -> Progress:
        turn = self._program.turn(submission)
        view = self._program.read_screen(pane)
        facts = self._facts(run, submission, turn, view)
        reading = state_of_task(facts)
        news: list[str] = []
        if view and reading.question:
            reading, news = self._answer_by_policy(pane, run, facts, reading, spec, view)
        else:
            self._asked = self._given = None
        submission, unpublished = submission.publish(run, turn.notes)
        ending = self._ending(pane, run, submission, facts, view)
        self.pause = pause_after(facts)
        return Progress(reading, ending, (*unpublished, *map(Fact, news)))

    def _facts(self, run: AttemptFolder, submission: Submission, turn: Turn, view: ScreenReading | None) -> TurnFacts:
        program, seconds = self._program, submission.seconds_in_phase
        facts = TurnFacts(
            phase=submission.phase,
            phase_seconds=seconds,
            turn=turn,
            live=view.best if view else StateReading(AgentState.EXITED, "pane"),
            moment=now(),
            in_use=bool(view and view.screen.in_use),
            reports_turns=program.reports_turns,
            trace_seconds=program.config.submit.trace_seconds,
        )
        if view and facts.phase.is_under_way and seconds >= STRANGE_SECONDS:
            composer = without_probe(view.composer, submission)
            content = composer.compare(submission.text(run), program.config.composer.placeholder)
            facts = replace(facts, content=content)
        if view and facts.phase is SubmissionPhase.ACCEPTED and not facts.turn.over:
            clock = self._clock(run)
            facts = replace(facts, idle_seconds=clock.look(view), busy_seen=clock.busy_seen)
        unknown, unchanged = self._unknown.look(view)
        facts = replace(facts, unknown_seconds=unknown, unchanged_seconds=unchanged)
        return replace(facts, unreported_seconds=self._unreported_seconds(facts))

    def _clock(self, run: AttemptFolder) -> _IdleClock:
        if self._idle is None or self._idle.folder != run.folder:
            self._idle = _IdleClock(run.folder, since=time.monotonic())
        return self._idle

    def _unreported_seconds(self, facts: TurnFacts) -> float:
        if not is_unreported_question(facts):
            self._unreported_since = None
            return 0.0
        self._unreported_since = self._unreported_since or time.monotonic()
        return time.monotonic() - self._unreported_since

    def _ending(
        self, pane: AgentPane, run: AttemptFolder, submission: Submission, facts: TurnFacts, view: ScreenReading | None
    ) -> ProgramEnding | None:
        if is_acceptance_unnoted(facts):
            return None
        # Events may have come since the facts were gathered: an end counts once the acceptance is noted.
        if not facts.phase.is_under_way and (ended := self._program.ending(run)):
            return ended
        match turn_end(facts):
            case TurnEnd.NOT_SUBMITTED:
                return self._program.end(run, facts.turn, submission_failure(submission), "")
            case TurnEnd.AGENT_REPORTED:
                return self._program.end(run, facts.turn, *reported_ending(facts.turn))
            case TurnEnd.SCREEN_IDLE if view and _has_started_anew(pane, submission):
                return self._program.end(run, facts.turn, ending_by_restart(), "")
            case TurnEnd.SCREEN_IDLE if view:
                answer = self._answer_on_screen(pane, view, run, submission)
                return self._program.end(run, facts.turn, ending_by_screen(facts, answer), answer)
        return None

    def _answer_on_screen(
        self, pane: AgentPane, view: ScreenReading, run: AttemptFolder, submission: Submission
    ) -> str:
        """What stands below the prompt, or below what stood there before it if the program does not show prompts."""
        above, config = view.above_with_history(pane), self._program.config.answer
        prompt = submission.placeholder or submission.text(run)[-40:]
        answer = answer_on(above, prompt, config)
        return (answer if answer is not None else answer_on(above, last_words(submission.above), config)) or ""

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _answer_by_policy(
        self,
        pane: AgentPane,
        run: AttemptFolder,
        facts: TurnFacts,
        reading: StateReading,
        spec: TaskSpec,
        view: ScreenReading,
    ) -> tuple[StateReading, list[str]]:
        """Answer the question if the policy does; returns the task's state then, and news for its history."""
        question, asking = reading.question, facts.turn.asking
        assert question
        # A dialog changes while it is answered, so a question that an event reported is recognised by the event.
        asked = _Asked(run.folder, None if asking else question, asking.at if asking else None)
        given = self._given if asked == self._asked else None
        decision = decide_permission(question, spec.permissions, self._program.config.permissions)
        news = []
        # Before its prompt is accepted, the question is not about the task, or is read from the prompt's own words.
        is_about_task = facts.phase is SubmissionPhase.ACCEPTED
        if decision and is_about_task and is_answer_due(given, time.monotonic(), (view.best, view.by_screen)):
            allowed, why = decision
            answered = self._allow_or_deny(pane, question, allowed=allowed)
            given = (given or GivenAnswers()).after(answered, time.monotonic())
            self._asked, self._given = asked, given
            if given.is_news:
                news.append(f"{'allowed' if allowed else 'denied'} {question.subject} by {why}")
            if answered is Answered.NO_SUCH_CHOICE:
                meant = "allows" if allowed else "denies"
                news.append(f"no choice {meant} {question.subject} for this once alone: a person decides")
        if given and given.count < MOST_ANSWERS:
            reading = StateReading(AgentState.WORKING, "policy", "answered")
        return reading, news

    def _allow_or_deny(self, pane: AgentPane, question: Question, *, allowed: bool) -> Answered:
        answered = self._program.permit(pane, question, allowed=allowed)
        if not allowed and "{text}" in self._program.config.answers.deny.keys:
            self._reason_given_at = time.monotonic()
        return answered

    def continues_after_denial(self, turn: Turn) -> bool:
        """Whether the program, interrupted by a denial, goes on with the reason as its next prompt."""
        interrupted = turn.over is not None and turn.over.kind is EventKind.INTERRUPTED
        return interrupted and time.monotonic() - self._reason_given_at < _REASON_SECONDS

    def answer(self, pane: AgentPane, question: Question, words: str) -> bool:
        """Give a person's answer: a choice's number or name, ``allow`` or ``deny``, or a text."""
        if not question.choices and (seen := self._seen(pane)):
            question = question.model_copy(update={"choices": seen.choices, "lasting": seen.lasting})
        text = self._program.config.answers.text
        command = words.strip().casefold()
        reply = understand_answer(words, question, text.choose if text else None)
        if command in ("allow", "deny") and not (reply and reply.text):
            answered = self._allow_or_deny(pane, question, allowed=command == "allow")
        elif reply:
            answered = self._program.choose(pane, question, reply)
            if answered is Answered.GIVEN and set(reply.numbers) & set(question.lasting):
                self._program.lasting.take()
        else:
            return False
        self.pause = SUBMITTING_PAUSE  # the next question is soon on the screen
        return answered is Answered.GIVEN

    def _seen(self, pane: AgentPane) -> Question | None:
        """The question on the screen: hooks often report it without its choices."""
        view = self._program.read_screen(pane)
        return view.by_screen.question if view else None
