"""A prompt's way into the program, as phases with evidence: intended, staged, submitted, accepted.

Each phase is on the disk before the next step is taken, so that the next worker knows what a killed one may have done.
Enter is pressed on nothing but Torch's own text, and what may have been submitted is never pasted again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from torch_tasks.model.fields import now
from torch_tasks.model.task import Fact, TaskStep
from torch_tasks.system.files import write_private
from torch_tasks.workers.folders import PromptFolder
from torch_tasks.workers.programs.events import EventKind, ProgramEvent

_FILE, _TEXT = "submission.json", "pasted"


class SubmissionPhase(StrEnum):
    """How far a submission is known to be."""

    INTENDED = "intended"
    """The text, or a part of it, may be in the composer."""
    STAGED = "staged"
    """The whole text was seen there."""
    SUBMITTED = "submitted"
    """Enter may have been pressed."""
    ACCEPTED = "accepted"
    """The program has taken the text as a prompt."""
    INDETERMINATE = "indeterminate"
    """The text is neither in the composer nor known to be accepted."""
    REFUSED = "refused"
    """The program does not take the text, and certainly does not have it."""

    @property
    def may_become(self) -> frozenset[SubmissionPhase]:
        """The phases that may follow this one."""
        return _MAY_BECOME[self]

    @property
    def is_under_way(self) -> bool:
        return self in (SubmissionPhase.INTENDED, SubmissionPhase.STAGED, SubmissionPhase.SUBMITTED)


class Probe(StrEnum):
    """A key that is typed after a paste of which nothing is seen: a program takes the two in their order."""

    NONE = "none"
    TYPED = "typed"
    """It may be in the composer, or may get there."""
    ALONE = "alone"
    """It was seen there without the text, which so was lost; it is being removed."""
    BEHIND = "behind"
    """It was seen there behind the text, which so came late; it is being removed."""


_P = SubmissionPhase
_IN_HISTORY = {_P.STAGED: TaskStep.STAGED, _P.SUBMITTED: TaskStep.SUBMITTED, _P.ACCEPTED: TaskStep.ACCEPTED}
_MAY_BECOME: Mapping[SubmissionPhase, frozenset[SubmissionPhase]] = {
    # A worker may be killed between the steps: then the program accepts a prompt that is noted as intended. Somebody
    # else may have pressed Enter on it.
    _P.INTENDED: frozenset({_P.STAGED, _P.ACCEPTED, _P.REFUSED, _P.INDETERMINATE}),
    # The text may change before Enter is pressed.
    _P.STAGED: frozenset({_P.SUBMITTED, _P.INTENDED, _P.ACCEPTED}),
    # Enter may be pressed again; a text that provably never arrived is intended once more.
    _P.SUBMITTED: frozenset({_P.SUBMITTED, _P.INTENDED, _P.ACCEPTED, _P.INDETERMINATE, _P.REFUSED}),
    # The program's report may come late.
    _P.INDETERMINATE: frozenset({_P.ACCEPTED}),
    _P.ACCEPTED: frozenset(),
    _P.REFUSED: frozenset(),
}


class SubmissionStep(BaseModel):
    """When a phase was reached, and the evidence for it."""

    model_config = ConfigDict(frozen=True)

    phase: SubmissionPhase
    at: datetime
    evidence: str


class Submission(BaseModel):
    """One prompt's submission, stored in the folder of its attempt or message."""

    model_config = ConfigDict(frozen=True)

    tag: str
    """What is submitted, with its id: ``task t-1``."""
    mark: str
    """Where the event log ended before anything was typed."""
    round: int = 1
    """Grows when the check's output is sent back."""
    steps: tuple[SubmissionStep, ...]
    pastes: int = 0
    pasted_at: datetime | None = None
    probe: Probe = Probe.NONE
    probed_at: datetime | None = None
    enters: int = 0
    entered_at: datetime | None = None
    pasted_anew: bool = False
    """The text left no trace and is submitted a second time."""
    placeholder: str = ""
    """What the composer showed instead of the text."""
    placeholder_is_new: bool = False
    """The placeholder was nowhere else on the screen."""
    above: str = ""
    """The screen above the composer when the text was seen in it."""
    echoes: int = 0
    """How often the prompt's last line, of an earlier round or attempt, was above the composer then."""
    program: str = ""
    """The run of the program that got Enter; empty if that is not known."""
    confirmed: bool = False
    """The program itself reported that it accepted the prompt."""
    published: tuple[int, int] = (0, 0)
    """How many of the steps, and of the agent's own notes, are in the task's history."""

    @classmethod
    def create(cls, run: PromptFolder, text: str, mark: str, evidence: str, number: int = 1) -> Submission:
        """Begin a submission, on the disk."""
        write_private(run.folder / _TEXT, text)
        step = SubmissionStep(phase=SubmissionPhase.INTENDED, at=now(), evidence=evidence)
        return cls(tag=run.tag, mark=mark, round=number, steps=(step,)).stored(run)

    @classmethod
    def load(cls, run: PromptFolder) -> Submission | None:
        """The submission in this folder; None if there is none."""
        try:
            return cls.model_validate_json((run.folder / _FILE).read_bytes())
        except FileNotFoundError:
            return None

    @property
    def phase(self) -> SubmissionPhase:
        return self.steps[-1].phase

    @property
    def was_staged(self) -> bool:
        """The text has been in the composer since it was pasted last."""
        staged = [step.at for step in self.steps if step.phase is SubmissionPhase.STAGED]
        return bool(staged) and (self.pasted_at is None or staged[-1] >= self.pasted_at)

    @property
    def seconds_in_phase(self) -> float:
        return (now() - self.steps[-1].at).total_seconds()

    @property
    def assumed_acceptance(self) -> ProgramEvent | None:
        """The event of an acceptance that only the screen showed; None if the program reports it."""
        if self.phase is not SubmissionPhase.ACCEPTED or self.confirmed:
            return None
        return ProgramEvent(EventKind.ACCEPTED, at=self.entered_at or self.steps[-1].at, origin="screen")

    def publish(self, run: PromptFolder, notes: Sequence[str]) -> tuple[Submission, tuple[Fact, ...]]:
        """Mark all steps and notes as published; returns with it those that are new for the task's history."""
        steps, known = self.published
        facts = [
            Fact(f"{step.phase}: {step.evidence}", _IN_HISTORY.get(step.phase))
            for step in self.steps[steps:]
            if step.evidence
        ]
        facts += [Fact(f"progress: {note}") for note in notes[known:]]
        published = (len(self.steps), len(notes))
        return (self.changed(run, published=published) if published != self.published else self), tuple(facts)

    def text(self, run: PromptFolder) -> str:
        return (run.folder / _TEXT).read_bytes().decode()

    def advance_to(self, run: PromptFolder, phase: SubmissionPhase, evidence: str, **changes: object) -> Submission:
        """The next step, on the disk."""
        return self.with_step(phase, evidence, **changes).stored(run)

    def with_step(self, phase: SubmissionPhase, evidence: str, **changes: object) -> Submission:
        """The next step, not yet on the disk."""
        assert phase in self.phase.may_become, f"a submission that is {self.phase} cannot become {phase}"
        step = SubmissionStep(phase=phase, at=now(), evidence=evidence)
        return self.model_copy(update={"steps": (*self.steps, step), **changes})

    def changed(self, run: PromptFolder, **changes: object) -> Submission:
        """The same with these changes, on the disk."""
        return self.model_copy(update=changes).stored(run)

    def stored(self, run: PromptFolder) -> Submission:
        """Write this to the disk."""
        write_private(run.folder / _FILE, self.model_dump_json(indent=1) + "\n")
        return self
