"""Watches a submitted task: what the program does, what it asks, when its turn is over.

The functions decide from :class:`TurnFacts`, all that is known at one moment; :class:`TurnWatcher` gathers the facts,
answers by the policy, and stores the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Evidence, FailureKind, Question, TaskSpec
from torch_tasks.workers.host.journal import AttemptFolder
from torch_tasks.workers.programs.config import KindConfig
from torch_tasks.workers.programs.events import EventKind
from torch_tasks.workers.programs.kind import TYPING, Ending, Progress, StateReading
from torch_tasks.workers.programs.questions import ChosenAnswer, decide_permission, merge_question, understand_answer
from torch_tasks.workers.programs.screen import ComposerContent, answer_on
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.programs.turn import Turn, failed_ending, reported_ending, submission_failure
from torch_tasks.workers.tmux.pane import AgentPane

SUBMITTING_PAUSE, SCREEN_PAUSE, BELL_PAUSE = 0.02, 0.25, 2.0
"""Until the next look: while the prompt is on its way, while only the screen shows news, and while the bell rings."""
SUBMITTING_SECONDS = 5.0
"""How long a prompt in one phase is looked at that often."""
IDLE_AFTER_BUSY_SECONDS, IDLE_SECONDS = 1.0, 3.0
"""An idle screen without a change for so long ends the turn of a program that was seen busy, or was not."""
STRANGE_SECONDS = 2.0
"""How long a paste may look strange before a person is said to be in its way."""
UNREPORTED_SECONDS = 1.0
"""How long an event may come after what the screen shows."""
UNDRAWN_SECONDS = 2.0
"""How long the screen may come after what an event reports: until then a question cannot be answered."""
DONE_IDLE_SECONDS, TALKING_SECONDS = 1.0, 20.0
"""How long an agent that reported its end has to be still, and how long it may go on talking at most."""
AGAIN_SECONDS, MOST_ANSWERS = 3.0, 3
"""How long after an answer the same question is answered again, and how often."""
_HISTORY = 3000
#: How long a program may take to go on after the reason for a denial.
_REASON_SECONDS = 10.0
_DEMANDS = frozenset({AgentState.WAITING, AgentState.LOGIN, AgentState.LIMITED})
_MOVED_ON = frozenset({AgentState.WORKING, AgentState.COMPACTING, AgentState.READY})


@dataclass(frozen=True)
class TurnFacts:
    """All that is known of a task's turn at one moment."""

    phase: SubmissionPhase
    phase_seconds: float
    """For how long its submission has been in this phase."""
    turn: Turn
    """What events report."""
    live: StateReading
    """What the best live source says of the program."""
    moment: datetime
    content: ComposerContent | None = None
    """Whose text stands in the composer; None if nobody has looked."""
    in_use: bool = False
    """A person is at the keys."""
    unreported_seconds: float = 0.0
    """For how long the screen has shown a question that no event reports."""
    idle_seconds: float | None = None
    """For how long the program has been idle, and its screen without a change; None if there is no screen."""
    busy_seen: bool = False
    """The program was seen working on this task."""
    reports_turns: bool = True
    """The program reports every prompt that it accepts, and every answer it has given."""
    trace_seconds: float = 10.0
    """How late such a report may come."""


# ── what the task is ─────────────────────────────────────────────────────────────────────────────────────────────


def state_of_task(facts: TurnFacts) -> StateReading:
    """What the program does with the task, and what a person has to see to."""
    reading = _reported_or_seen(facts)
    if is_unreported_question(facts, reading) and facts.unreported_seconds <= UNREPORTED_SECONDS:
        reading = StateReading(AgentState.WORKING, "screen", "asks something")
    if reading.state is AgentState.WORKING and (why := hindrance(facts)):
        return StateReading(AgentState.WAITING, "screen", "input line", hindrance=why)
    return reading


def _reported_or_seen(facts: TurnFacts) -> StateReading:
    turn, live = facts.turn, facts.live
    if facts.phase is not SubmissionPhase.ACCEPTED:
        return live if live.state in _DEMANDS else StateReading(AgentState.WORKING, "submission", facts.phase)
    reported = turn.reading
    if reported is None or turn.over:
        return reported or live
    if turn.asking:
        # Not every program reports that its question was answered.
        if live.state in _MOVED_ON:
            return StateReading(AgentState.WORKING, live.source, live.rule)
        if not live.question and _age(turn.asking.at, facts.moment) < UNDRAWN_SECONDS:
            return StateReading(AgentState.WORKING, reported.source, f"{reported.rule}, nothing on the screen yet")
        return replace(reported, question=merge_question(turn.asking, live.question))
    return live if live.state in _DEMANDS | {AgentState.COMPACTING} else reported


def is_unreported_question(facts: TurnFacts, reading: StateReading | None = None) -> bool:
    """Only the screen shows a question, and the program will report in a moment what it is about."""
    reading = reading or _reported_or_seen(facts)
    is_reported = facts.turn.asking is not None or facts.turn.accepted is None
    return reading.state is AgentState.WAITING and facts.reports_turns and not is_reported


def hindrance(facts: TurnFacts) -> str | None:
    """What keeps the prompt from being submitted, if a person has to see to it."""
    if facts.content is None or not facts.phase.is_under_way or facts.phase_seconds < STRANGE_SECONDS:
        return None
    if facts.content is ComposerContent.MIXED:
        return TYPING
    if facts.phase is SubmissionPhase.SUBMITTED:
        return None
    if facts.content is ComposerContent.UNSEEN:
        return "something covers the input line of the agent's program"
    return TYPING if facts.content is ComposerContent.FOREIGN or facts.in_use else None


def pause_after(facts: TurnFacts) -> float:
    """Seconds after which to look again though no bell rang."""
    if facts.phase is not SubmissionPhase.ACCEPTED:
        return SUBMITTING_PAUSE if facts.phase_seconds < SUBMITTING_SECONDS else SCREEN_PAUSE
    asking = facts.turn.asking
    if asking and _age(asking.at, facts.moment) < UNDRAWN_SECONDS:
        return SCREEN_PAUSE  # its dialog comes after the bell
    rings = facts.reports_turns and not facts.turn.report and not is_unreported_question(facts)
    return BELL_PAUSE if rings else SCREEN_PAUSE


# ── how it ends ──────────────────────────────────────────────────────────────────────────────────────────────────


class TurnEnd(Enum):
    """Whether a task's turn is over, where no event reports that."""

    OPEN = "open"
    NOT_SUBMITTED = "the program does not have the prompt, or may not have it"
    AGENT_REPORTED = "the agent itself reported the end, and is still"
    SCREEN_IDLE = "the screen shows that the program has nothing to do"


def is_acceptance_unnoted(facts: TurnFacts) -> bool:
    """Acceptance was reported since the last step of the submission: it is noted before any end is."""
    return facts.turn.accepted is not None and facts.phase not in (SubmissionPhase.ACCEPTED, SubmissionPhase.REFUSED)


def turn_end(facts: TurnFacts) -> TurnEnd:
    """Whether the turn is over, as far as no event reports it."""
    if facts.phase in (SubmissionPhase.REFUSED, SubmissionPhase.INDETERMINATE):
        return TurnEnd.NOT_SUBMITTED
    if facts.idle_seconds is None or facts.phase is not SubmissionPhase.ACCEPTED or facts.turn.over:
        return TurnEnd.OPEN
    if report := facts.turn.report:
        is_still = facts.idle_seconds >= DONE_IDLE_SECONDS or _age(report.at, facts.moment) > TALKING_SECONDS
        return TurnEnd.AGENT_REPORTED if is_still else TurnEnd.OPEN
    return TurnEnd.SCREEN_IDLE if facts.idle_seconds >= _patience(facts) else TurnEnd.OPEN


def _patience(facts: TurnFacts) -> float:
    if facts.reports_turns:
        return facts.trace_seconds
    return IDLE_AFTER_BUSY_SECONDS if facts.busy_seen else IDLE_SECONDS


def ending_by_screen(facts: TurnFacts, answer: str) -> Ending:
    """The ending of a turn that is over only by what the screen shows; ``answer`` is read from it."""
    if facts.reports_turns or not (answer or facts.busy_seen):
        message = "its turn ended without an answer: interrupted in its pane, or a permission was denied"
        evidence = Evidence(kind="screen", detail=message, passed=False)
        return failed_ending(FailureKind.AGENT_FAILED, message, evidence)
    return Ending(Evidence(kind="screen", detail="the program was busy and is idle again", passed=True))


# ── the policy's answers ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Asked:
    """One question of one task; it may be asked again."""

    run: Path
    question: Question | None
    at: datetime | None


@dataclass(frozen=True)
class GivenAnswers:
    """How often the policy has answered one question, and when it last did."""

    count: int
    at: float


def is_answer_due(given: GivenAnswers | None, moment: float, shown: Iterable[StateReading]) -> bool:
    """The policy's answer can be typed, for its dialog is shown; or again, for the keys were not heard."""
    if all(reading.state is not AgentState.WAITING for reading in shown):
        return False
    return given is None or (moment - given.at >= AGAIN_SECONDS and given.count < MOST_ANSWERS)


def _age(at: datetime, moment: datetime) -> float:
    return (moment - at).total_seconds()


# ── the watcher ──────────────────────────────────────────────────────────────────────────────────────────────────


class WatchedProgram(Protocol):
    """What the watcher needs of an agent's program."""

    config: KindConfig
    reports_turns: bool

    def turn(self, submission: Submission) -> Turn:
        """What events report of the task's turn since it was submitted."""

    def read_screen(self, pane: AgentPane) -> ScreenReading | None:
        """The pane as it is now; None if it is gone."""

    def ending(self, run: AttemptFolder) -> Ending | None:
        """How the task ended, if that is stored, or events report it."""

    def end(self, run: AttemptFolder, turn: Turn, ending: Ending, answer: str) -> Ending:
        """Store how the task ended."""

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> None:
        """Give or refuse the permission that is asked for."""

    def choose(self, pane: AgentPane, question: Question, reply: ChosenAnswer) -> None:
        """Give a person's answer to what is asked."""


@dataclass
class _IdleClock:
    """Since when the pane of one run has shown the same."""

    folder: Path
    busy_seen: bool = False
    above: str = ""
    since: float = 0.0

    def look(self, view: ScreenReading) -> float:
        """Seconds for which the program has been idle, and nothing above its composer has changed."""
        moment = time.monotonic()
        if view.best.state is AgentState.WORKING:
            self.busy_seen = True
        if view.best.state is not AgentState.READY or view.above != self.above:
            self.above, self.since = view.above, moment
        return moment - self.since


class TurnWatcher:
    """One agent's running task, look by look. What it remembers between looks, the next worker finds out again."""

    def __init__(self, program: WatchedProgram) -> None:
        self._program = program
        self._idle: _IdleClock | None = None
        self._asked: _Asked | None = None
        self._given: GivenAnswers | None = None
        self._reason_given_at = float("-inf")
        self._unreported_since: float | None = None
        self.pause = SUBMITTING_PAUSE

    def progress(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec, submission: Submission) -> Progress:
        """How far the task is."""
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
        return Progress(reading, ending, (*unpublished, *news))

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
            content = view.composer.holds(submission.text(run), program.config.composer.placeholder)
            facts = replace(facts, content=content)
        if view and facts.phase is SubmissionPhase.ACCEPTED and not facts.turn.over:
            clock = self._clock(run)
            facts = replace(facts, idle_seconds=clock.look(view), busy_seen=clock.busy_seen)
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
    ) -> Ending | None:
        if is_acceptance_unnoted(facts):
            return None
        if ended := self._program.ending(run):
            return ended
        match turn_end(facts):
            case TurnEnd.NOT_SUBMITTED:
                return self._program.end(run, facts.turn, submission_failure(submission), "")
            case TurnEnd.AGENT_REPORTED:
                return self._program.end(run, facts.turn, *reported_ending(facts.turn))
            case TurnEnd.SCREEN_IDLE if view:
                end = submission.placeholder or submission.text(run)[-40:]
                answer = self._answer_on_screen(pane, view, end)
                return self._program.end(run, facts.turn, ending_by_screen(facts, answer), answer)
        return None

    def _answer_on_screen(self, pane: AgentPane, view: ScreenReading, end: str) -> str:
        history = pane.screen(_HISTORY).split("\n")
        below = len(view.screen.text.split("\n")) - view.composer.top
        above = "\n".join(history[: len(history) - below] if below > 0 else history)
        return answer_on(above, end, self._program.config.answer)

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
        """Answer what the policy answers; what the task then is, and what was done."""
        question, asking = reading.question, facts.turn.asking
        assert question
        # How a dialog looks changes while it is answered: what an event reported is known by that.
        asked = _Asked(run.folder, None if asking else question, asking.at if asking else None)
        given = self._given if asked == self._asked else None
        decision = decide_permission(question, spec.permissions, self._program.config.permissions)
        news = []
        if decision and is_answer_due(given, time.monotonic(), (view.best, view.by_screen)):
            allowed, why = decision
            if given is None:
                news.append(f"{'allowed' if allowed else 'denied'} {question.subject} by {why}")
            given = GivenAnswers(given.count + 1 if given else 1, time.monotonic())
            self._asked, self._given = asked, given
            self._allow_or_deny(pane, question, allowed=allowed)
        if given and given.count < MOST_ANSWERS:
            reading = StateReading(AgentState.WORKING, "policy", "answered")
        return reading, news

    def _allow_or_deny(self, pane: AgentPane, question: Question, *, allowed: bool) -> None:
        self._program.permit(pane, question, allowed=allowed)
        if not allowed and "{text}" in self._program.config.answers.deny:
            self._reason_given_at = time.monotonic()

    def goes_on(self, turn: Turn) -> bool:
        """The program takes a denial for an interruption, and goes on with the reason as its next prompt."""
        interrupted = turn.over is not None and turn.over.kind is EventKind.INTERRUPTED
        return interrupted and time.monotonic() - self._reason_given_at < _REASON_SECONDS

    def answer(self, pane: AgentPane, question: Question, said: str) -> bool:
        """Give a person's answer: the number of a choice, a choice's words, ``allow`` or ``deny``, or a text."""
        question = question.model_copy(update={"choices": question.choices or self._choices_seen(pane)})
        text_choice = self._program.config.answers.text_choice
        word = said.strip().casefold()
        reply = understand_answer(said, question, text_choice)
        if word in ("allow", "deny") and not (reply and reply.text):
            self._allow_or_deny(pane, question, allowed=word == "allow")
        elif reply:
            self._program.choose(pane, question, reply)
        else:
            return False
        self.pause = SUBMITTING_PAUSE  # what it asks next is on the screen
        return True

    def _choices_seen(self, pane: AgentPane) -> tuple[str, ...]:
        """Hooks report what is asked, and often not what can be answered."""
        view = self._program.read_screen(pane)
        return view.by_screen.question.choices if view and view.by_screen.question else ()
