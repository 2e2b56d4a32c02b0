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
from torch_tasks.workers.host.runs import Paper, Run
from torch_tasks.workers.programs.config import KindConfig
from torch_tasks.workers.programs.events import Event
from torch_tasks.workers.programs.prompt import belongs_to
from torch_tasks.workers.programs.screen import Composer, Holds
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import Phase, Submission
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane, comparable

#: How long a paste may take to be seen whole; then it is taken back and pasted again, so often.
_PASTE_SECONDS = 3.0
_PASTES = 4
#: So many Enters on a text that stays where it is, and the program is taken for deaf.
_ENTERS = 7
_BUSY = frozenset({AgentState.WORKING, AgentState.COMPACTING})


class Typist(Protocol):
    """Who can see the program and type into it."""

    config: KindConfig
    tells: bool
    """The program tells of every prompt that it accepts."""

    def sight(self, pane: AgentPane) -> ScreenReading | None:
        """The pane as it is now; None if it is gone."""

    def stage(self, pane: AgentPane, text: str, used_at: int) -> bool:
        """Put the text into the empty composer; false, and nothing is done, if a person has typed since then."""

    def submit(self, pane: AgentPane, used_at: int) -> bool:
        """Have the program take what stands in its composer; false, and nothing is done, if a person has typed."""

    def answer_dialog(self, pane: AgentPane, sight: ScreenReading) -> None:
        """Answer what covers the composer, if it is known how."""

    def clear(self, pane: AgentPane) -> None:
        """Empty the composer of what is ours."""


class Submitter:
    """One run's submission."""

    def __init__(self, typist: Typist, pane: AgentPane, run: Paper) -> None:
        self._typist = typist
        self._pane = pane
        self._run = run
        self._config = typist.config.submit
        # A task is begun only where nothing goes on; a message may come while the program works.
        self._listens = self._config.while_working and not isinstance(run, Run)
        self._open = {AgentState.READY, *([AgentState.WORKING] if self._listens else [])}

    def advance(self, submission: Submission, turn: Turn) -> Submission:
        """Do what is due, and only that; never waits."""
        if submission.phase in (Phase.ACCEPTED, Phase.REFUSED):
            return submission
        if turn.accepted:
            self._run.begun.touch()
            evidence = _heard(turn.accepted, submission.text(self._run))
            return submission.reached(self._run, Phase.ACCEPTED, evidence, heard=True)
        sight = self._typist.sight(self._pane)
        if sight is None or submission.phase is Phase.INDETERMINATE:
            return submission
        if not sight.composer.seen:
            self._typist.answer_dialog(self._pane, sight)
        text = submission.text(self._run)
        steps: dict[Phase, Callable[[Submission, ScreenReading, str], Submission]] = {
            Phase.INTENDED: self._stage,
            Phase.STAGED: self._enter_when_settled,
            Phase.SUBMITTED: self._confirm,
        }
        return steps[submission.phase](submission, sight, text)

    def holds(self, composer: Composer, text: str) -> Holds:
        """Whose text stands in the composer."""
        return composer.holds(text, self._typist.config.composer.placeholder)

    # ── intended → staged ────────────────────────────────────────────────────────────────────────────────────────

    def _stage(self, submission: Submission, sight: ScreenReading, text: str) -> Submission:
        if sight.screen.in_use:
            return submission
        holds = self.holds(sight.composer, text)
        if not submission.pastes:
            if holds is Holds.NOTHING and sight.reading.state in self._open:
                return self._paste(submission, sight, text)
            return submission
        if holds is Holds.OURS:
            staged = self._staged(submission, sight)
            if self._config.settle_seconds:
                return staged.kept(self._run)
            return self._enter(staged, sight, text, "Enter pressed")
        if not _passed(submission.pasted_at, _PASTE_SECONDS):
            return submission
        if holds is Holds.PART:
            self._typist.clear(self._pane)
        elif holds is Holds.NOTHING:
            if submission.pastes >= _PASTES:
                return submission.reached(self._run, Phase.REFUSED, f"it took none of {_PASTES} pastes")
            return self._paste(submission, sight, text)
        return submission

    def _paste(self, before: Submission, sight: ScreenReading, text: str) -> Submission:
        submission = before.changed(self._run, pastes=before.pastes + 1, pasted_at=now())
        return submission if self._typist.stage(self._pane, text, sight.screen.used_at) else before.kept(self._run)

    def _staged(self, submission: Submission, sight: ScreenReading) -> Submission:
        """The step, which is not on the disk yet: the one before it is as good for whoever comes after a kill."""
        placeholder = self._typist.config.composer.placeholder
        shown = sight.composer.text if placeholder and placeholder.fullmatch(sight.composer.text) else ""
        evidence = f"the composer shows {shown}" if shown else "the whole text is seen in the composer"
        if submission.pastes > 1:
            evidence += f", pasted {submission.pastes} times"
        return submission.stepped(
            Phase.STAGED,
            evidence,
            placeholder=shown,
            placeholder_is_new=bool(shown) and shown not in sight.above,
            above=_digest(sight.above),
        )

    # ── staged → submitted ───────────────────────────────────────────────────────────────────────────────────────

    def _enter_when_settled(self, submission: Submission, sight: ScreenReading, text: str) -> Submission:
        if self.holds(sight.composer, text) is not Holds.OURS:
            return submission.reached(self._run, Phase.INTENDED, "the text in the composer changed before Enter")
        if submission.since < self._config.settle_seconds:
            return submission
        return self._enter(submission, sight, text, "Enter pressed")

    def _enter(self, before: Submission, sight: ScreenReading, text: str, evidence: str) -> Submission:
        """Press Enter on our own text. That it may be pressed is on the disk before it is."""
        if sight.screen.in_use:
            return before
        submission = before.reached(self._run, Phase.SUBMITTED, evidence, enters=before.enters + 1, entered_at=now())
        self._run.begun.touch()
        if self._submit(text):
            return submission
        if not before.enters:
            self._run.begun.unlink()
        return before.kept(self._run)

    def _submit(self, text: str) -> bool:
        sight = self._typist.sight(self._pane)
        if sight is None or sight.screen.in_use or self.holds(sight.composer, text) is not Holds.OURS:
            return False
        return self._typist.submit(self._pane, sight.screen.used_at)

    # ── submitted → accepted ─────────────────────────────────────────────────────────────────────────────────────

    def _confirm(self, submission: Submission, sight: ScreenReading, text: str) -> Submission:
        holds = self.holds(sight.composer, text)
        if holds is Holds.OURS:
            return self._press_again(submission, sight, text)
        if holds is Holds.MIXED:
            return submission
        # What it takes while it works, it tells of when it comes to it.
        if self._typist.tells and not self._listens and not self._is_overdue(submission):
            return submission
        if trace := self._trace(submission, sight):
            return submission.reached(self._run, Phase.ACCEPTED, trace)
        covered = not sight.composer.seen
        return submission if covered or not self._is_overdue(submission) else self._conclude(submission, sight)

    def _press_again(self, submission: Submission, sight: ScreenReading, text: str) -> Submission:
        if not _passed(submission.entered_at, self._config.again_seconds * 2 ** (submission.enters - 1)):
            return submission
        if submission.enters >= _ENTERS:
            self._typist.clear(self._pane)
            return submission.reached(
                self._run, Phase.REFUSED, f"the text stayed in the composer after {_ENTERS} Enters"
            )
        return self._enter(submission, sight, text, "Enter pressed again: the text still stood in the composer")

    def _trace(self, submission: Submission, sight: ScreenReading) -> str | None:
        """What on the screen shows that the program has the prompt; only what was not there before it."""
        if belongs_to(sight.above, submission.tag):
            return "the prompt stands above the composer"
        if submission.placeholder_is_new and submission.placeholder in sight.above:
            return f"{submission.placeholder} stands above the composer"
        if sight.composer.empty and sight.reading.state in _BUSY:
            return f"the composer is empty, and the program is {sight.reading.state} ({sight.reading.rule})"
        return None

    def _conclude(self, submission: Submission, sight: ScreenReading) -> Submission:
        """It left no trace. Only where that proves that it never came is it pasted anew."""
        untouched = sight.composer.empty and submission.above == _digest(sight.above)
        if self._typist.tells and untouched and sight.reading.state is AgentState.READY and not submission.anew:
            evidence = "no event tells of it and nothing on the screen has changed: staged anew"
            return submission.reached(self._run, Phase.INTENDED, evidence, anew=True, pastes=0, enters=0)
        evidence = "the text left the composer, and nothing shows where it is; look at its pane before trying again"
        return submission.reached(self._run, Phase.INDETERMINATE, evidence)

    def _is_overdue(self, submission: Submission) -> bool:
        return _passed(submission.entered_at, self._config.trace_seconds)


def _heard(accepted: Event, text: str) -> str:
    if comparable(accepted.text) == comparable(text):
        return f"{accepted.origin}: it has the whole prompt"
    sizes = f"{len(accepted.text)} characters of {len(text)}"
    return f"{accepted.origin}: it has the prompt, but not as it was sent: {sizes}"


def _passed(moment: datetime | None, seconds: float) -> bool:
    return moment is None or (now() - moment).total_seconds() >= seconds


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
