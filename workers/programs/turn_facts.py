"""Decides from plain facts what state a task in a program has, whether its turn is over, and when to look again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Evidence, FailureKind
from torch_tasks.workers.programs.answering import Answered
from torch_tasks.workers.programs.kind import Hindrance, ProgramEnding, StateReading
from torch_tasks.workers.programs.questions import merge_question
from torch_tasks.workers.programs.screen import ComposerContent
from torch_tasks.workers.programs.submission import SubmissionPhase
from torch_tasks.workers.programs.turn import Turn, failed_ending

SUBMITTING_PAUSE, SCREEN_PAUSE, BELL_PAUSE = 0.02, 0.25, 2.0
"""Until the next look: while the prompt is submitted, while only the screen shows news, and while the bell rings."""
SUBMITTING_SECONDS = 5.0
"""After so long in one phase, a prompt is looked at less often."""
IDLE_AFTER_BUSY_SECONDS, IDLE_SECONDS = 1.0, 3.0
"""How long the screen of a program that was seen busy, or was not, is idle and unchanged before the turn is over."""
STRANGE_SECONDS = 2.0
"""How long a paste may look wrong before it counts as mixed with a person's text."""
UNREPORTED_SECONDS = 1.0
"""How long the event of a question may come after the screen shows it."""
UNCHANGED_SECONDS, UNKNOWN_SECONDS = 3.0, 30.0
"""How long a screen that no rule knows is shown, unchanged or not, before a person hears of it."""
UNDRAWN_SECONDS = 2.0
"""How long the screen may show a question after its event; until then it cannot be answered."""
DONE_IDLE_SECONDS, TALKING_SECONDS = 1.0, 20.0
"""How long an agent that reported the end must be still, and after how long its report counts anyway."""
AGAIN_SECONDS, MOST_ANSWERS = 3.0, 3
"""After how long the policy answers the same question again, and how often at most."""
_DEMANDS = frozenset({AgentState.WAITING, AgentState.LOGIN, AgentState.LIMITED})
_MOVED_ON = frozenset({AgentState.WORKING, AgentState.COMPACTING, AgentState.READY})


@dataclass(frozen=True)
class TurnFacts:
    """All that is known of a task's turn at one moment."""

    phase: SubmissionPhase
    phase_seconds: float
    """How long the submission has been in this phase."""
    turn: Turn
    live: StateReading
    """The program's state by the best live source."""
    moment: datetime
    content: ComposerContent | None = None
    """None if the composer was not looked at."""
    in_use: bool = False
    """A person is typing."""
    unreported_seconds: float = 0.0
    """How long the screen has shown a question that no event reports."""
    unknown_seconds: float = 0.0
    """How long the program has shown what no rule of its kind knows."""
    unchanged_seconds: float = 0.0
    """How long it has been the same."""
    idle_seconds: float | None = None
    """How long the program has been idle on an unchanged screen; None if there is no screen."""
    busy_seen: bool = False
    """The program was seen working on this task."""
    reports_turns: bool = True
    """The program reports every prompt that it accepts, and every answer that it gives."""
    trace_seconds: float = 10.0
    """How late such a report may come."""


# ── what state the task has ──────────────────────────────────────────────────────────────────────────────────────────


def state_of_task(facts: TurnFacts) -> StateReading:
    """What the program does with the task, and what a person has to do for it."""
    reading = _reported_or_seen(facts)
    if is_unreported_question(facts, reading) and facts.unreported_seconds <= UNREPORTED_SECONDS:
        reading = StateReading(AgentState.WORKING, "screen", "asks something")
    if reading.state is AgentState.WORKING and (why := hindrance(facts)):
        if why is Hindrance.UNKNOWN_SCREEN and facts.live.offers:
            return StateReading(AgentState.WAITING, "screen", "a menu that no rule knows", facts.live.offers)
        return StateReading(AgentState.WAITING, "screen", "input line", hindrance=why, shows=facts.live.shows)
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
    """Whether only the screen shows a question, which the program will report in a moment."""
    reading = reading or _reported_or_seen(facts)
    is_reported = facts.turn.asking is not None or facts.turn.accepted is None
    return reading.state is AgentState.WAITING and facts.reports_turns and not is_reported


def hindrance(facts: TurnFacts) -> Hindrance | None:
    """What keeps the prompt out of the program, or the program from its task."""
    if facts.phase is SubmissionPhase.ACCEPTED:
        is_strange = facts.unchanged_seconds >= UNCHANGED_SECONDS or facts.unknown_seconds >= UNKNOWN_SECONDS
        return Hindrance.UNKNOWN_SCREEN if is_strange else None
    if facts.content is None or not facts.phase.is_under_way or facts.phase_seconds < STRANGE_SECONDS:
        return None
    if facts.content is ComposerContent.MIXED:
        return Hindrance.PERSON
    if facts.phase is SubmissionPhase.SUBMITTED:
        return None
    if facts.content is ComposerContent.UNSEEN:
        return Hindrance.UNKNOWN_SCREEN if facts.live.state is AgentState.UNKNOWN else Hindrance.DIALOG
    if facts.content is ComposerContent.FOREIGN or facts.in_use:
        return Hindrance.PERSON
    is_left_over = facts.content is ComposerContent.OURS and facts.phase is SubmissionPhase.INTENDED
    return Hindrance.OWN_TEXT if is_left_over else None


def pause_after(facts: TurnFacts) -> float:
    """Seconds until the next look if no bell rings."""
    if facts.phase is not SubmissionPhase.ACCEPTED:
        return SUBMITTING_PAUSE if facts.phase_seconds < SUBMITTING_SECONDS else SCREEN_PAUSE
    asking = facts.turn.asking
    if asking and _age(asking.at, facts.moment) < UNDRAWN_SECONDS:
        return SCREEN_PAUSE  # the dialog is drawn after the bell
    rings = facts.reports_turns and not facts.turn.report and not is_unreported_question(facts)
    return BELL_PAUSE if rings else SCREEN_PAUSE


# ── how it ends ──────────────────────────────────────────────────────────────────────────────────────────────────


class TurnEnd(Enum):
    """Whether a task's turn is over although no event reports it."""

    OPEN = "open"
    NOT_SUBMITTED = "the program does not have the prompt, or may not have it"
    AGENT_REPORTED = "the agent itself reported the end, and is still"
    SCREEN_IDLE = "the screen shows that the program has nothing to do"


def is_acceptance_unnoted(facts: TurnFacts) -> bool:
    """Whether an event reports an acceptance that the submission does not note yet: that comes before any end."""
    return facts.turn.accepted is not None and facts.phase not in (SubmissionPhase.ACCEPTED, SubmissionPhase.REFUSED)


def turn_end(facts: TurnFacts) -> TurnEnd:
    """Whether the turn is over although no event reports it."""
    if facts.phase in (SubmissionPhase.REFUSED, SubmissionPhase.INDETERMINATE):
        return TurnEnd.NOT_SUBMITTED
    if facts.idle_seconds is None or facts.phase is not SubmissionPhase.ACCEPTED or facts.turn.over:
        return TurnEnd.OPEN
    if report := facts.turn.report:
        is_still = facts.idle_seconds >= DONE_IDLE_SECONDS or _age(report.at, facts.moment) > TALKING_SECONDS
        return TurnEnd.AGENT_REPORTED if is_still else TurnEnd.OPEN
    by_screen_alone = IDLE_AFTER_BUSY_SECONDS if facts.busy_seen else IDLE_SECONDS
    patience = facts.trace_seconds if facts.reports_turns else by_screen_alone
    return TurnEnd.SCREEN_IDLE if facts.idle_seconds >= patience else TurnEnd.OPEN


def ending_by_screen(facts: TurnFacts, answer: str) -> ProgramEnding:
    """The ending of a turn that only the screen shows to be over; ``answer`` is read from the screen."""
    if facts.reports_turns or not (answer or facts.busy_seen):
        message = "its turn ended without an answer: interrupted in its pane, or a permission was denied"
        evidence = Evidence(kind="screen", detail=message, passed=False)
        return failed_ending(FailureKind.AGENT_FAILED, message, evidence)
    return ProgramEnding(Evidence(kind="screen", detail="the program was busy and is idle again", passed=True))


def ending_by_restart() -> ProgramEnding:
    """The ending of a turn whose program started anew, as after an update, and does not go on with it."""
    message = "agent crashed: its program started anew in mid-task, as after an update, and its turn is gone"
    return failed_ending(FailureKind.AGENT_CRASHED, message, Evidence(kind="process", detail=message, passed=False))


# ── the policy's answers ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class GivenAnswers:
    """How often the policy has answered one question, and when it last did."""

    count: int = 0
    at: float = 0.0
    is_given: bool = False
    """The program has got an answer."""
    is_news: bool = False
    """It has got its first one now."""

    def after(self, answered: Answered, moment: float) -> GivenAnswers:
        """With one answer more; without the choice that it needs, the policy tries no more."""
        count = MOST_ANSWERS if answered is Answered.NO_SUCH_CHOICE else self.count + 1
        is_given = answered is Answered.GIVEN
        return GivenAnswers(count, moment, self.is_given or is_given, is_given and not self.is_given)


def is_answer_due(given: GivenAnswers | None, moment: float, shown: Iterable[StateReading]) -> bool:
    """Whether to type the policy's answer: the dialog is shown, and the last answer had no effect."""
    if all(reading.state is not AgentState.WAITING for reading in shown):
        return False
    return given is None or (moment - given.at >= AGAIN_SECONDS and given.count < MOST_ANSWERS)


def _age(at: datetime, moment: datetime) -> float:
    return (moment - at).total_seconds()
