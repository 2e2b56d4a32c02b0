"""Takes a submission one step further at each call: pastes the text, sees it, presses Enter, presses it again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from torch_tasks.model.fields import now
from torch_tasks.system.files import set_mark
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs.config import KindConfig
from torch_tasks.workers.programs.events import ProgramEvent
from torch_tasks.workers.programs.pane_program import run_of
from torch_tasks.workers.programs.prompt import count_footers, unwrapped
from torch_tasks.workers.programs.screen import Composer, ComposerContent
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import Probe, Submission, SubmissionPhase
from torch_tasks.workers.programs.submission_moves import DueMove, Move, Seen, SubmitRules, next_move
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane, comparable

PROBE = "."
"""The key that is typed behind a paste of which nothing is seen."""


class ProgramInput(Protocol):
    """What a submission needs of an agent's program."""

    config: KindConfig
    reports_turns: bool
    """The program reports every prompt that it accepts."""

    def read_screen(self, pane: AgentPane) -> ScreenReading | None:
        """The pane as it is now; None if it is gone."""

    def stage(self, pane: AgentPane, text: str, used_at: int) -> bool:
        """Put the text into the empty composer; does nothing and returns False if a person has typed since."""

    def submit(self, pane: AgentPane, used_at: int) -> bool:
        """Have the program take the text; does nothing and returns False if a person has typed since."""

    def answer_dialog(self, pane: AgentPane, view: ScreenReading) -> None:
        """Answer the dialog that covers the composer, if it is a known one."""

    def discard_input(self, pane: AgentPane) -> None:
        """Empty the composer if it holds Torch's text and nothing else."""

    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        """Interrupt the program; with ``force``, kill it."""


#: The moves that note a phase, and what else they change in the submission.
_NOTED_PHASES: Mapping[Move, tuple[SubmissionPhase, Mapping[str, object]]] = {
    Move.ACCEPT: (SubmissionPhase.ACCEPTED, {"confirmed": True}),
    Move.ASSUME_ACCEPTED: (SubmissionPhase.ACCEPTED, {}),
    Move.STAGE_AGAIN: (SubmissionPhase.INTENDED, {}),
    Move.PASTE_ANEW: (SubmissionPhase.INTENDED, {"pasted_anew": True, "pastes": 0, "enters": 0}),
    Move.REFUSE: (SubmissionPhase.REFUSED, {}),
    Move.CLEAR_AND_REFUSE: (SubmissionPhase.REFUSED, {}),
    Move.END_AND_REFUSE: (SubmissionPhase.REFUSED, {}),
    Move.GIVE_UP: (SubmissionPhase.INDETERMINATE, {}),
}


class Submitter:
    """Carries out the moves of one submission."""

    def __init__(self, program: ProgramInput, pane: AgentPane, folder: PromptFolder) -> None:
        self._program = program
        self._pane = pane
        self._folder = folder
        config = program.config.submit
        # A task is begun only where nothing goes on; a message may come while the program works.
        while_working = config.while_working and not isinstance(folder, AttemptFolder)
        self._rules = SubmitRules(config, program.reports_turns, while_working)

    def advance(self, submission: Submission, turn: Turn) -> Submission:
        """Do what is due; never waits."""
        if not submission.phase.may_become:
            return submission
        text = submission.text(self._folder)
        reported = report_of(turn.accepted, text, self._program.config.prompt.wrappers) if turn.accepted else None
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
        content = self._content(without_probe(view.composer, submission), text)
        above_changed = has_changed(submission.above, view.above)
        return Seen(
            content=content,
            state=view.best.state,
            rule=view.best.rule,
            in_use=view.screen.in_use,
            prompt_above=above_changed and self._is_echoed(submission, view, content),
            placeholder_above=submission.placeholder if is_new else "",
            above_changed=above_changed,
            probe=_seen_probe(view.composer, submission, content),
            unread=self._is_unread(submission, content),
        )

    def _is_unread(self, submission: Submission, content: ComposerContent) -> bool:
        """Whether the program, which still shows the text, has yet to read the Enter behind it."""
        is_entered = submission.phase is SubmissionPhase.SUBMITTED and content is ComposerContent.OURS
        return is_entered and self._pane.has_unread_keys()

    def _is_echoed(self, submission: Submission, view: ScreenReading, content: ComposerContent) -> bool:
        """Whether the prompt has been drawn above the composer; a long answer may have pushed it off the screen."""
        is_gone = content is not ComposerContent.OURS and submission.was_staged
        return is_gone and self._count_echoes(submission, view) > submission.echoes

    def _count_echoes(self, submission: Submission, view: ScreenReading) -> int:
        return count_footers(view.above_with_history(self._pane), submission.tag)

    def _content(self, composer: Composer, text: str) -> ComposerContent:
        return composer.compare(text, self._program.config.composer.placeholder)

    def _carry_out(self, decision: DueMove, before: Submission, view: ScreenReading | None, text: str) -> Submission:
        if decision.move is Move.ACCEPT:
            set_mark(self._folder.begun)
        if decision.move is Move.CLEAR_AND_REFUSE:
            self._program.discard_input(self._pane)
        if decision.move is Move.END_AND_REFUSE:
            self._program.interrupt(self._pane, force=True)
        if decision.move in _NOTED_PHASES:
            phase, changes = _NOTED_PHASES[decision.move]
            return before.advance_to(self._folder, phase, decision.evidence, **changes)
        return self._type(decision, before, view, text) if view else before

    def _type(self, decision: DueMove, before: Submission, view: ScreenReading, text: str) -> Submission:
        match decision.move:
            case Move.PASTE:
                return self._paste(before, view, text)
            case Move.TAKE_BACK:
                self._program.discard_input(self._pane)
            case Move.PROBE:
                return self._press(PROBE, before, view, probe=Probe.TYPED, probed_at=now())
            case Move.REMOVE_PROBE:
                found = _seen_probe(view.composer, before, self._content(without_probe(view.composer, before), text))
                return self._press("BSpace", before, view, probe=found)
            case Move.NOTE_STAGED:
                return self._staged(before, view).stored(self._folder)
            case Move.STAGE_AND_ENTER:
                # The staged phase is not stored: after a kill, the next worker can go on from the phase before it.
                return self._enter(self._staged(before, view), text, decision.evidence)
            case Move.ENTER:
                return self._enter(before, text, decision.evidence)
        return before

    def _paste(self, before: Submission, view: ScreenReading, text: str) -> Submission:
        changes = {"pastes": before.pastes + 1, "pasted_at": now(), "probe": Probe.NONE}
        after = before.changed(self._folder, **changes)
        is_pasted = self._program.stage(self._pane, text, view.screen.used_at)
        return after if is_pasted else before.stored(self._folder)

    def _press(self, key: str, before: Submission, view: ScreenReading, **changes: object) -> Submission:
        """Press the key, after the disk says that it may have been pressed."""
        after = before.changed(self._folder, **changes)
        is_pressed = self._pane.type_unless_used(view.screen.used_at, keys=[key])
        return after if is_pressed else before.stored(self._folder)

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
            above=view.above,
            echoes=self._count_echoes(submission, view),
        )

    def _enter(self, before: Submission, text: str, evidence: str) -> Submission:
        """Press Enter on Torch's own text, after the disk says that it may be pressed."""
        look = self._pane.look()
        program = run_of(look) if look else ""
        changes = {"enters": before.enters + 1, "entered_at": now(), "program": program}
        after = before.advance_to(self._folder, SubmissionPhase.SUBMITTED, evidence, **changes)
        set_mark(self._folder.begun)
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


def report_of(accepted: ProgramEvent, text: str, wrappers: Iterable[re.Pattern[str]]) -> str:
    """How the program's event reports that it has the prompt: whole, maybe in a wrapper of its own, or changed."""
    if comparable(accepted.text) == comparable(text):
        return f"{accepted.origin}: it has the whole prompt"
    if comparable(unwrapped(accepted.text, wrappers)) == comparable(text):
        return f"{accepted.origin}: it has the whole prompt, in a wrapper of its own"
    return f"{accepted.origin}: it has a changed prompt: {len(accepted.text)} characters of {len(text)}"


def without_probe(composer: Composer, submission: Submission) -> Composer:
    """The composer as it would be without the probe, if that may be there."""
    if submission.probe is Probe.NONE or submission.phase is not SubmissionPhase.INTENDED:
        return composer
    return replace(composer, text=composer.text.removesuffix(PROBE))


def _seen_probe(composer: Composer, submission: Submission, content: ComposerContent) -> Probe:
    """Where the probe is seen; ``content`` is what is in the composer beside it."""
    if without_probe(composer, submission) is composer or not composer.text.endswith(PROBE):
        return Probe.NONE
    if content is ComposerContent.NOTHING:
        return Probe.ALONE
    return Probe.BEHIND if content in (ComposerContent.OURS, ComposerContent.PART) else Probe.NONE


def has_changed(before: str, now: str) -> bool:
    """Whether something else stands above the composer than before, not only more or fewer rows of the same."""
    rows, rows_now = ([line.rstrip() for line in text.split("\n") if line.strip()] for text in (before, now))
    count = min(len(rows), len(rows_now))
    return rows[len(rows) - count :] != rows_now[len(rows_now) - count :] or (not rows and bool(rows_now))
