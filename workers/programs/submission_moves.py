"""What is due for a submission, by what was done, reported and seen: pure decisions, which touch no pane."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.programs.config import SubmitConfig
from torch_tasks.workers.programs.screen import ComposerContent
from torch_tasks.workers.programs.submission import Probe, Submission, SubmissionPhase

PASTE_SECONDS = 3.0
"""How long a paste may take to be seen; then a part of it is cleared, and behind an unseen one a key is typed."""
DEAF_SECONDS = 30.0
"""A program that has not drawn or read a key after so long is ended, and a new one gets the text."""
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
    END_AND_REFUSE = "end the program, which draws or reads nothing, and note that it does not take the text"
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
    unread: bool = False
    """The program has not read yet what was typed last."""


_WAIT = DueMove(Move.WAIT)
_UNREAD = f"it did not read Enter within {DEAF_SECONDS:g} s, so it was ended"
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
    if seen.unread:  # with a second Enter, a program that reads both at once may submit the text twice
        is_deaf = _passed(submission.entered_at, DEAF_SECONDS, moment)
        return DueMove(Move.END_AND_REFUSE, _UNREAD) if is_deaf else _WAIT
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
