"""Takes a submission one step further, whenever it is asked: what is pasted, seen, pressed, pressed again.

See :mod:`torch_tasks.workers.programs.submission` for the facts it goes by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.workers.host.journal import AttemptFolder
from torch_tasks.workers.programs.config import KindConfig
from torch_tasks.workers.programs.events import ProgramEvent
from torch_tasks.workers.programs.prompt import belongs_to
from torch_tasks.workers.programs.screen import Composer, ComposerContent
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import PromptFolder, Submission, SubmissionPhase
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane, comparable

#: How long a paste may take to be seen whole; then it is taken back and pasted again, so often.
_PASTE_SECONDS = 3.0
_PASTES = 4
#: So many Enters on a text that stays where it is, and the program is taken for deaf.
_ENTERS = 7
_BUSY = frozenset({AgentState.WORKING, AgentState.COMPACTING})


class ProgramInput(Protocol):
    """Who can see the program and type into it."""

    config: KindConfig
    reports_turns: bool
    """The program tells of every prompt that it accepts."""

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
    """One run's submission."""

    def __init__(self, typist: ProgramInput, pane: AgentPane, run: PromptFolder) -> None:
        self._typist = typist
        self._pane = pane
        self._run = run
        self._config = typist.config.submit
        # A task is begun only where nothing goes on; a message may come while the program works.
        self._listens = self._config.while_working and not isinstance(run, AttemptFolder)
        self._open = {AgentState.READY, *([AgentState.WORKING] if self._listens else [])}

    def advance(self, submission: Submission, turn: Turn) -> Submission:
        """Do what is due, and only that; never waits."""
        if submission.phase in (SubmissionPhase.ACCEPTED, SubmissionPhase.REFUSED):
            return submission
        if turn.accepted:
            self._run.begun.touch()
            evidence = _heard(turn.accepted, submission.text(self._run))
            return submission.advance_to(self._run, SubmissionPhase.ACCEPTED, evidence, confirmed=True)
        view = self._typist.read_screen(self._pane)
        if view is None or submission.phase is SubmissionPhase.INDETERMINATE:
            return submission
        if not view.composer.seen:
            self._typist.answer_dialog(self._pane, view)
        text = submission.text(self._run)
        steps: dict[SubmissionPhase, Callable[[Submission, ScreenReading, str], Submission]] = {
            SubmissionPhase.INTENDED: self._stage,
            SubmissionPhase.STAGED: self._enter_when_settled,
            SubmissionPhase.SUBMITTED: self._confirm,
        }
        return steps[submission.phase](submission, view, text)

    def holds(self, composer: Composer, text: str) -> ComposerContent:
        """Whose text stands in the composer."""
        return composer.holds(text, self._typist.config.composer.placeholder)

    # ── intended → staged ────────────────────────────────────────────────────────────────────────────────────────

    def _stage(self, submission: Submission, view: ScreenReading, text: str) -> Submission:
        if view.screen.in_use:
            return submission
        holds = self.holds(view.composer, text)
        if not submission.pastes:
            if holds is ComposerContent.NOTHING and view.best.state in self._open:
                return self._paste(submission, view, text)
            return submission
        if holds is ComposerContent.OURS:
            staged = self._staged(submission, view)
            if self._config.settle_seconds:
                return staged.stored(self._run)
            return self._enter(staged, view, text, "Enter pressed")
        if not _passed(submission.pasted_at, _PASTE_SECONDS):
            return submission
        if holds is ComposerContent.PART:
            self._typist.clear(self._pane)
        elif holds is ComposerContent.NOTHING:
            if submission.pastes >= _PASTES:
                return submission.advance_to(self._run, SubmissionPhase.REFUSED, f"it took none of {_PASTES} pastes")
            return self._paste(submission, view, text)
        return submission

    def _paste(self, before: Submission, view: ScreenReading, text: str) -> Submission:
        submission = before.changed(self._run, pastes=before.pastes + 1, pasted_at=now())
        return submission if self._typist.stage(self._pane, text, view.screen.used_at) else before.stored(self._run)

    def _staged(self, submission: Submission, view: ScreenReading) -> Submission:
        """The step, which is not on the disk yet: the one before it is as good for whoever comes after a kill."""
        placeholder = self._typist.config.composer.placeholder
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

    # ── staged → submitted ───────────────────────────────────────────────────────────────────────────────────────

    def _enter_when_settled(self, submission: Submission, view: ScreenReading, text: str) -> Submission:
        if self.holds(view.composer, text) is not ComposerContent.OURS:
            return submission.advance_to(
                self._run, SubmissionPhase.INTENDED, "the text in the composer changed before Enter"
            )
        if submission.seconds_in_phase < self._config.settle_seconds:
            return submission
        return self._enter(submission, view, text, "Enter pressed")

    def _enter(self, before: Submission, view: ScreenReading, text: str, evidence: str) -> Submission:
        """Press Enter on our own text. That it may be pressed is on the disk before it is."""
        if view.screen.in_use:
            return before
        submission = before.advance_to(
            self._run, SubmissionPhase.SUBMITTED, evidence, enters=before.enters + 1, entered_at=now()
        )
        self._run.begun.touch()
        if self._submit(text):
            return submission
        if not before.enters:
            self._run.begun.unlink()
        return before.stored(self._run)

    def _submit(self, text: str) -> bool:
        view = self._typist.read_screen(self._pane)
        if view is None or view.screen.in_use or self.holds(view.composer, text) is not ComposerContent.OURS:
            return False
        return self._typist.submit(self._pane, view.screen.used_at)

    # ── submitted → accepted ─────────────────────────────────────────────────────────────────────────────────────

    def _confirm(self, submission: Submission, view: ScreenReading, text: str) -> Submission:
        holds = self.holds(view.composer, text)
        if holds is ComposerContent.OURS:
            return self._press_again(submission, view, text)
        if holds is ComposerContent.MIXED:
            return submission
        # What it takes while it works, it tells of when it comes to it.
        if self._typist.reports_turns and not self._listens and not self._is_overdue(submission):
            return submission
        if trace := self._trace(submission, view):
            return submission.advance_to(self._run, SubmissionPhase.ACCEPTED, trace)
        covered = not view.composer.seen
        return submission if covered or not self._is_overdue(submission) else self._conclude(submission, view)

    def _press_again(self, submission: Submission, view: ScreenReading, text: str) -> Submission:
        if not _passed(submission.entered_at, self._config.again_seconds * 2 ** (submission.enters - 1)):
            return submission
        if submission.enters >= _ENTERS:
            self._typist.clear(self._pane)
            return submission.advance_to(
                self._run, SubmissionPhase.REFUSED, f"the text stayed in the composer after {_ENTERS} Enters"
            )
        return self._enter(submission, view, text, "Enter pressed again: the text still stood in the composer")

    def _trace(self, submission: Submission, view: ScreenReading) -> str | None:
        """What on the screen shows that the program has the prompt; only what was not there before it."""
        if belongs_to(view.above, submission.tag):
            return "the prompt stands above the composer"
        if submission.placeholder_is_new and submission.placeholder in view.above:
            return f"{submission.placeholder} stands above the composer"
        if view.composer.empty and view.best.state in _BUSY:
            return f"the composer is empty, and the program is {view.best.state} ({view.best.rule})"
        return None

    def _conclude(self, submission: Submission, view: ScreenReading) -> Submission:
        """It left no trace. Only where that proves that it never came is it pasted anew."""
        untouched = view.composer.empty and submission.above == _digest(view.above)
        if self._typist.reports_turns and untouched and view.best.state is AgentState.READY and not submission.anew:
            evidence = "no event tells of it and nothing on the screen has changed: staged anew"
            return submission.advance_to(self._run, SubmissionPhase.INTENDED, evidence, anew=True, pastes=0, enters=0)
        evidence = "the text left the composer, and nothing shows where it is; look at its pane before trying again"
        return submission.advance_to(self._run, SubmissionPhase.INDETERMINATE, evidence)

    def _is_overdue(self, submission: Submission) -> bool:
        return _passed(submission.entered_at, self._config.trace_seconds)


def _heard(accepted: ProgramEvent, text: str) -> str:
    if comparable(accepted.text) == comparable(text):
        return f"{accepted.origin}: it has the whole prompt"
    sizes = f"{len(accepted.text)} characters of {len(text)}"
    return f"{accepted.origin}: it has the prompt, but not as it was sent: {sizes}"


def _passed(moment: datetime | None, seconds: float) -> bool:
    return moment is None or (now() - moment).total_seconds() >= seconds


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
