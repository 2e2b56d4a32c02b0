"""Takes a submission one step further, whenever it is asked to: what is pasted, seen, pressed, pressed again.

:func:`next_move` decides from what was done, what is reported and what is seen; :class:`Submitter` carries it out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs.config import KindConfig, SubmitConfig
from torch_tasks.workers.programs.events import ProgramEvent
from torch_tasks.workers.programs.prompt import belongs_to
from torch_tasks.workers.programs.screen import Composer, ComposerContent
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane, comparable

PASTE_SECONDS = 3.0
"""How long a paste may take to be seen whole; then it is taken back and pasted again."""
MOST_PASTES = 4
MOST_ENTERS = 7
"""So many Enters on a text that stays where it is, and the program is taken for deaf."""
_BUSY = frozenset({AgentState.WORKING, AgentState.COMPACTING})


class Move(Enum):
    """What is to be done for a submission now."""

    WAIT = "wait"
    PASTE = "paste the text"
    TAKE_BACK = "clear the part of the text that stands in the composer"
    NOTE_STAGED = "note that the whole text is seen"
    STAGE_AND_ENTER = "note that the whole text is seen, and press Enter"
    ENTER = "press Enter"
    STAGE_AGAIN = "go back to intended"
    ACCEPT = "note that the program reports that it has the prompt"
    ASSUME_ACCEPTED = "note that the program has the prompt, by what the screen shows"
    PASTE_ANEW = "go back to intended, as if it had never been pasted"
    REFUSE = "note that the program does not take it"
    CLEAR_AND_REFUSE = "clear the composer, and note that the program does not take it"
    GIVE_UP = "note that nothing shows what became of it"


@dataclass(frozen=True)
class DueMove:
    """A move, and what speaks for it."""

    move: Move
    evidence: str = ""


@dataclass(frozen=True)
class SubmitRules:
    """How the program takes prompts, and how patient to be with it."""

    config: SubmitConfig
    reports_turns: bool
    """The program reports every prompt that it accepts."""
    while_working: bool = False
    """This prompt is given to a program that works, too."""


@dataclass(frozen=True)
class Seen:
    """What one look at the pane says to a submission."""

    content: ComposerContent
    """Whose text stands in the composer."""
    state: AgentState
    rule: str = ""
    """What says that the program is in this state."""
    in_use: bool = False
    """A person is at the keys."""
    prompt_above: bool = False
    """The prompt stands above the composer."""
    placeholder_above: str = ""
    """What stood in the composer in the prompt's place, and now stands above it, and did not before."""
    above_changed: bool = True
    """What stands above the composer is not what stood there when the text was staged."""


_WAIT = DueMove(Move.WAIT)


def next_move(
    submission: Submission, reported: str | None, seen: Seen | None, rules: SubmitRules, moment: datetime
) -> DueMove:
    """What is due, and only that. ``reported``: how the program's own event reports that it has the prompt."""
    if submission.phase in (SubmissionPhase.ACCEPTED, SubmissionPhase.REFUSED):
        return _WAIT
    if reported:
        return DueMove(Move.ACCEPT, reported)
    if seen is None:
        return _WAIT
    match submission.phase:
        case SubmissionPhase.INTENDED:
            return _until_staged(submission, seen, rules, moment)
        case SubmissionPhase.STAGED:
            return _until_entered(submission, seen, rules, moment)
        case SubmissionPhase.SUBMITTED:
            return _until_accepted(submission, seen, rules, moment)
    return _WAIT


def _until_staged(submission: Submission, seen: Seen, rules: SubmitRules, moment: datetime) -> DueMove:
    if seen.in_use:
        return _WAIT
    if not submission.pastes:
        takes = seen.state is AgentState.READY or (rules.while_working and seen.state is AgentState.WORKING)
        return DueMove(Move.PASTE) if takes and seen.content is ComposerContent.NOTHING else _WAIT
    if seen.content is ComposerContent.OURS:
        return DueMove(Move.NOTE_STAGED if rules.config.settle_seconds else Move.STAGE_AND_ENTER, "Enter pressed")
    if not _passed(submission.pasted_at, PASTE_SECONDS, moment):
        return _WAIT
    if seen.content is ComposerContent.PART:
        return DueMove(Move.TAKE_BACK)
    if seen.content is not ComposerContent.NOTHING:
        return _WAIT
    if submission.pastes >= MOST_PASTES:
        return DueMove(Move.REFUSE, f"it took none of {MOST_PASTES} pastes")
    return DueMove(Move.PASTE)


def _until_entered(submission: Submission, seen: Seen, rules: SubmitRules, moment: datetime) -> DueMove:
    if seen.content is not ComposerContent.OURS:
        return DueMove(Move.STAGE_AGAIN, "the text in the composer changed before Enter")
    if seen.in_use or not _passed(submission.steps[-1].at, rules.config.settle_seconds, moment):
        return _WAIT
    return DueMove(Move.ENTER, "Enter pressed")


def _until_accepted(submission: Submission, seen: Seen, rules: SubmitRules, moment: datetime) -> DueMove:
    if seen.content is ComposerContent.OURS:
        return _press_again(submission, seen, rules, moment)
    if seen.content is ComposerContent.MIXED:
        return _WAIT
    is_overdue = _passed(submission.entered_at, rules.config.trace_seconds, moment)
    # A prompt that the program takes while it works is reported only when the program comes to it.
    if rules.reports_turns and not rules.while_working and not is_overdue:
        return _WAIT
    if trace := _trace(seen):
        return DueMove(Move.ASSUME_ACCEPTED, trace)
    if not is_overdue or seen.content is ComposerContent.UNSEEN:
        return _WAIT
    return _without_trace(submission, seen, rules)


def _press_again(submission: Submission, seen: Seen, rules: SubmitRules, moment: datetime) -> DueMove:
    if not _passed(submission.entered_at, rules.config.again_seconds * 2 ** (submission.enters - 1), moment):
        return _WAIT
    if submission.enters >= MOST_ENTERS:
        return DueMove(Move.CLEAR_AND_REFUSE, f"the text stayed in the composer after {MOST_ENTERS} Enters")
    if seen.in_use:
        return _WAIT
    return DueMove(Move.ENTER, "Enter pressed again: the text still stood in the composer")


def _trace(seen: Seen) -> str | None:
    """What on the screen shows that the program has the prompt; only what was not there before it."""
    if seen.prompt_above:
        return "the prompt stands above the composer"
    if seen.placeholder_above:
        return f"{seen.placeholder_above} stands above the composer"
    if seen.content is ComposerContent.NOTHING and seen.state in _BUSY:
        return f"the composer is empty, and the program is {seen.state} ({seen.rule})"
    return None


def _without_trace(submission: Submission, seen: Seen, rules: SubmitRules) -> DueMove:
    """It left no trace. Only where that proves that it never came is it pasted anew, once."""
    is_untouched = seen.content is ComposerContent.NOTHING and not seen.above_changed
    never_came = rules.reports_turns and is_untouched and seen.state is AgentState.READY
    if never_came and not submission.pasted_anew:
        return DueMove(Move.PASTE_ANEW, "no event reports it and nothing on the screen has changed: staged anew")
    evidence = "the text left the composer, and nothing shows where it is; look at its pane before trying again"
    return DueMove(Move.GIVE_UP, evidence)


def _passed(since: datetime | None, seconds: float, moment: datetime) -> bool:
    return since is None or (moment - since).total_seconds() >= seconds


class ProgramInput(Protocol):
    """What a submission needs of an agent's program: its screen, and to type into it."""

    config: KindConfig
    reports_turns: bool
    """The program reports every prompt that it accepts."""

    def read_screen(self, pane: AgentPane) -> ScreenReading | None:
        """The pane as it is now; None if it is gone."""

    def stage(self, pane: AgentPane, text: str, used_at: int) -> bool:
        """Put the text into the empty composer; false, and nothing is done, if a person has typed since then."""

    def submit(self, pane: AgentPane, used_at: int) -> bool:
        """Have the program take what stands in its composer; false, and nothing is done, if a person has typed."""

    def answer_dialog(self, pane: AgentPane, view: ScreenReading) -> None:
        """Answer what covers the composer, if it is known how."""

    def clear(self, pane: AgentPane) -> None:
        """Empty the composer of what is ours."""


class Submitter:
    """Carries out what is due for one submission."""

    def __init__(self, program: ProgramInput, pane: AgentPane, folder: PromptFolder) -> None:
        self._program = program
        self._pane = pane
        self._folder = folder
        config = program.config.submit
        # A task is begun only where nothing goes on; a message may come while the program works.
        while_working = config.while_working and not isinstance(folder, AttemptFolder)
        self._rules = SubmitRules(config, program.reports_turns, while_working)

    def advance(self, submission: Submission, turn: Turn) -> Submission:
        """Do what is due, and only that; never waits."""
        if not submission.phase.may_become:
            return submission
        text = submission.text(self._folder)
        reported = _reported(turn.accepted, text) if turn.accepted else None
        view = self._look() if submission.phase.is_under_way and not reported else None
        seen = self._seen(submission, view, text) if view else None
        decision = next_move(submission, reported, seen, self._rules, now())
        return self._carry_out(decision, submission, view, text)

    def _look(self) -> ScreenReading | None:
        view = self._program.read_screen(self._pane)
        if view and not view.composer.seen:
            self._program.answer_dialog(self._pane, view)
        return view

    def _seen(self, submission: Submission, view: ScreenReading, text: str) -> Seen:
        is_new = submission.placeholder_is_new and submission.placeholder in view.above
        return Seen(
            content=self._content(view.composer, text),
            state=view.best.state,
            rule=view.best.rule,
            in_use=view.screen.in_use,
            prompt_above=belongs_to(view.above, submission.tag),
            placeholder_above=submission.placeholder if is_new else "",
            above_changed=submission.above != _digest(view.above),
        )

    def _content(self, composer: Composer, text: str) -> ComposerContent:
        return composer.compare(text, self._program.config.composer.placeholder)

    def _carry_out(self, decision: DueMove, before: Submission, view: ScreenReading | None, text: str) -> Submission:
        evidence = decision.evidence
        match decision.move:
            case Move.ACCEPT:
                self._folder.begun.touch()
                return self._advance_to(before, SubmissionPhase.ACCEPTED, evidence, confirmed=True)
            case Move.ASSUME_ACCEPTED:
                return self._advance_to(before, SubmissionPhase.ACCEPTED, evidence)
            case Move.STAGE_AGAIN:
                return self._advance_to(before, SubmissionPhase.INTENDED, evidence)
            case Move.PASTE_ANEW:
                return self._advance_to(
                    before, SubmissionPhase.INTENDED, evidence, pasted_anew=True, pastes=0, enters=0
                )
            case Move.REFUSE:
                return self._advance_to(before, SubmissionPhase.REFUSED, evidence)
            case Move.CLEAR_AND_REFUSE:
                self._program.clear(self._pane)
                return self._advance_to(before, SubmissionPhase.REFUSED, evidence)
            case Move.GIVE_UP:
                return self._advance_to(before, SubmissionPhase.INDETERMINATE, evidence)
        return self._type(decision, before, view, text) if view else before

    def _advance_to(self, before: Submission, phase: SubmissionPhase, evidence: str, **changes: object) -> Submission:
        return before.advance_to(self._folder, phase, evidence, **changes)

    def _type(self, decision: DueMove, before: Submission, view: ScreenReading, text: str) -> Submission:
        match decision.move:
            case Move.PASTE:
                return self._paste(before, view, text)
            case Move.TAKE_BACK:
                self._program.clear(self._pane)
            case Move.NOTE_STAGED:
                return self._staged(before, view).stored(self._folder)
            case Move.STAGE_AND_ENTER:
                # The staged phase is not stored: after a kill, the phase before it is as good.
                return self._enter(self._staged(before, view), text, decision.evidence)
            case Move.ENTER:
                return self._enter(before, text, decision.evidence)
        return before

    def _paste(self, before: Submission, view: ScreenReading, text: str) -> Submission:
        after = before.changed(self._folder, pastes=before.pastes + 1, pasted_at=now())
        is_pasted = self._program.stage(self._pane, text, view.screen.used_at)
        return after if is_pasted else before.stored(self._folder)

    def _staged(self, submission: Submission, view: ScreenReading) -> Submission:
        placeholder = self._program.config.composer.placeholder
        shown = view.composer.text if placeholder and placeholder.fullmatch(view.composer.text) else ""
        evidence = f"the composer shows {shown}" if shown else "the whole text is seen in the composer"
        if submission.pastes > 1:
            evidence += f", pasted {submission.pastes} times"
        return submission.with_step(
            SubmissionPhase.STAGED,
            evidence,
            placeholder=shown,
            placeholder_is_new=bool(shown) and shown not in view.above,
            above=_digest(view.above),
        )

    def _enter(self, before: Submission, text: str, evidence: str) -> Submission:
        """Press Enter on our own text. That it may be pressed is on the disk before it is."""
        after = self._advance_to(
            before, SubmissionPhase.SUBMITTED, evidence, enters=before.enters + 1, entered_at=now()
        )
        self._folder.begun.touch()
        if self._press_enter(text):
            return after
        if not before.enters:
            self._folder.begun.unlink()
        return before.stored(self._folder)

    def _press_enter(self, text: str) -> bool:
        view = self._program.read_screen(self._pane)
        if view is None or view.screen.in_use or self._content(view.composer, text) is not ComposerContent.OURS:
            return False
        return self._program.submit(self._pane, view.screen.used_at)


def _reported(accepted: ProgramEvent, text: str) -> str:
    if comparable(accepted.text) == comparable(text):
        return f"{accepted.origin}: it has the whole prompt"
    sizes = f"{len(accepted.text)} characters of {len(text)}"
    return f"{accepted.origin}: it has the prompt, but not as it was sent: {sizes}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
