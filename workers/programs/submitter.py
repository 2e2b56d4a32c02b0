"""Takes a submission one step further at each call: pastes the text, sees it, presses Enter, presses it again.

:func:`next_move` decides by what was done, reported and seen; :class:`Submitter` carries it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Protocol

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.system.files import set_mark
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs.config import KindConfig, SubmitConfig
from torch_tasks.workers.programs.events import ProgramEvent
from torch_tasks.workers.programs.pane_program import run_of
from torch_tasks.workers.programs.prompt import count_footers, unwrapped
from torch_tasks.workers.programs.screen import Composer, ComposerContent
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import Probe, Submission, SubmissionPhase
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane, comparable

PASTE_SECONDS = 3.0
"""How long a paste may take to be seen; then a part of it is cleared, and behind an unseen one a key is typed."""
PROBE = "."
"""The key that is typed behind a paste of which nothing is seen."""
DEAF_SECONDS = 30.0
"""A program that has not drawn this key after so long is ended, and a new one gets the text."""
MOST_PASTES = 4
MOST_ENTERS = 7
"""The program refuses a text that is still in the composer after so many Enters."""
_BUSY = frozenset({AgentState.WORKING, AgentState.COMPACTING})


class Move(Enum):
    """What to do for a submission now."""

    WAIT = "wait"
    PASTE = "paste the text"
    TAKE_BACK = "clear the part of the text that is in the composer"
    PROBE = "type a key behind the paste, which shows what became of it"
    REMOVE_PROBE = "remove that key, and note what it has shown"
    END_AND_REFUSE = "end the program, which draws nothing, and note that it does not take the text"
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
    """A move, and the evidence for it."""

    move: Move
    evidence: str = ""


@dataclass(frozen=True)
class SubmitRules:
    """How the program takes prompts, and how long to wait for it."""

    config: SubmitConfig
    reports_turns: bool
    """The program reports every prompt that it accepts."""
    while_working: bool = False
    """This prompt may be given to a working program."""


@dataclass(frozen=True)
class Seen:
    """What one look at the pane shows of a submission."""

    content: ComposerContent
    state: AgentState
    rule: str = ""
    """The rule that decided the state."""
    in_use: bool = False
    """A person is typing."""
    prompt_above: bool = False
    """The prompt is above the composer."""
    placeholder_above: str = ""
    """The prompt's placeholder, if it is now above the composer and was not before."""
    above_changed: bool = True
    """The screen above the composer has changed since the text was staged."""
    probe: Probe = Probe.NONE
    """Where the typed probe is seen."""


_WAIT = DueMove(Move.WAIT)
_VANISHED = "the text left the composer, and nothing shows where it is; look at its pane before trying again"


def next_move(
    submission: Submission, reported: str | None, seen: Seen | None, rules: SubmitRules, moment: datetime
) -> DueMove:
    """The move that is due. ``reported``: how the program's own event reports that it has the prompt."""
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
    if submission.probe is Probe.TYPED or seen.probe is not Probe.NONE:
        return _until_probed(submission, seen, moment)
    if seen.content is ComposerContent.OURS:
        return DueMove(Move.NOTE_STAGED if rules.config.settle_seconds else Move.STAGE_AND_ENTER, "Enter pressed")
    if not _passed(submission.pasted_at, PASTE_SECONDS, moment):
        return _WAIT
    if seen.content is ComposerContent.PART:
        return DueMove(Move.TAKE_BACK)
    if seen.content is not ComposerContent.NOTHING:
        return _WAIT
    return _when_nothing_is_seen(submission, seen, rules, moment)


def _until_probed(submission: Submission, seen: Seen, moment: datetime) -> DueMove:
    """Wait until the probe is drawn, and then until it is gone: before that, nothing may be entered or pasted."""
    if submission.probe is Probe.TYPED and seen.probe is not Probe.NONE:
        return DueMove(Move.REMOVE_PROBE)
    if seen.content in (ComposerContent.FOREIGN, ComposerContent.MIXED):
        return _WAIT
    return _end_if_deaf(submission, moment)


def _when_nothing_is_seen(submission: Submission, seen: Seen, rules: SubmitRules, moment: datetime) -> DueMove:
    """Paste again what provably is not in the program; else find out what became of it."""
    if submission.was_staged:
        return _when_it_vanished(submission, seen, rules, moment)
    if submission.probe is Probe.BEHIND:
        return _end_if_deaf(submission, moment)
    if submission.probe is Probe.NONE:
        takes = seen.state is AgentState.READY or (rules.while_working and seen.state is AgentState.WORKING)
        return DueMove(Move.PROBE) if takes else _WAIT
    if submission.pastes >= MOST_PASTES:
        return DueMove(Move.REFUSE, f"it took none of {MOST_PASTES} pastes")
    return DueMove(Move.PASTE)


def _when_it_vanished(submission: Submission, seen: Seen, rules: SubmitRules, moment: datetime) -> DueMove:
    """The text left the composer before Torch pressed Enter: a person has deleted it, or has submitted it."""
    if trace := _trace(seen, rules):
        return DueMove(Move.ASSUME_ACCEPTED, f"somebody pressed Enter: {trace}")
    if not seen.above_changed and seen.state is AgentState.READY:
        return DueMove(Move.PASTE)
    is_overdue = _passed(submission.steps[-1].at, rules.config.trace_seconds, moment)
    return DueMove(Move.GIVE_UP, _VANISHED) if is_overdue else _WAIT


def _end_if_deaf(submission: Submission, moment: datetime) -> DueMove:
    if not _passed(submission.probed_at, DEAF_SECONDS, moment):
        return _WAIT
    why = f"it drew neither the text nor a key typed after it within {DEAF_SECONDS:g} s, so it was ended"
    return DueMove(Move.END_AND_REFUSE, why)


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
    if trace := _trace(seen, rules):
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
    return DueMove(Move.ENTER, "Enter pressed again: the text was still in the composer")


def _trace(seen: Seen, rules: SubmitRules) -> str | None:
    """What shows that the program has the prompt, of what was not on the screen before."""
    if seen.prompt_above:
        return "the prompt is above the composer"
    if seen.placeholder_above:
        return f"{seen.placeholder_above} is above the composer"
    if seen.content is ComposerContent.NOTHING and seen.state in _BUSY:
        return f"the composer is empty, and the program is {seen.state} ({seen.rule})"
    # A turn may be over within one look, its prompt nowhere to be seen. Others would have reported it.
    if seen.content is ComposerContent.NOTHING and seen.above_changed and not rules.reports_turns:
        return "the composer is empty, and the screen above it has changed"
    return None


def _without_trace(submission: Submission, seen: Seen, rules: SubmitRules) -> DueMove:
    """Paste a text that left no trace again, once, but only if that proves that it never arrived."""
    is_untouched = seen.content is ComposerContent.NOTHING and not seen.above_changed
    never_came = rules.reports_turns and is_untouched and seen.state is AgentState.READY
    if never_came and not submission.pasted_anew:
        return DueMove(Move.PASTE_ANEW, "no event reports it and nothing on the screen has changed: pasted again")
    return DueMove(Move.GIVE_UP, _VANISHED)


def _passed(since: datetime | None, seconds: float, moment: datetime) -> bool:
    return since is None or (moment - since).total_seconds() >= seconds


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
        )

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
