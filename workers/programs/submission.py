"""A prompt's way into the program, in facts with evidence: intended, staged, submitted, accepted.

Each is on the disk before the next step is taken, so whoever comes after a kill knows what may have happened. Enter
is pressed on nothing but our own text, and nothing that may have been submitted is ever pasted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from torch_tasks.model.fields import now
from torch_tasks.system.files import write_private
from torch_tasks.workers.host.runs import Paper
from torch_tasks.workers.programs.events import Event, EventKind


class Phase(StrEnum):
    """How far a submission is known to be."""

    INTENDED = "intended"
    """The text may stand in the composer, or a part of it."""
    STAGED = "staged"
    """The whole text was seen there."""
    SUBMITTED = "submitted"
    """Enter may have been pressed."""
    ACCEPTED = "accepted"
    """The program has taken it as a prompt."""
    INDETERMINATE = "indeterminate"
    """It is neither in the composer nor known to be accepted."""
    REFUSED = "refused"
    """The program does not take it; it certainly does not have it."""


class Step(BaseModel):
    """When a phase was reached, and what shows it."""

    model_config = ConfigDict(frozen=True)

    phase: Phase
    at: datetime
    evidence: str


class Submission(BaseModel):
    """One prompt's submission, in the run's folder."""

    model_config = ConfigDict(frozen=True)

    tag: str
    """What is submitted, and its id: ``task t-1``."""
    mark: str
    """Where the event log ended before anything was typed."""
    round: int = 1
    """Grows when the check's output is sent back."""
    steps: tuple[Step, ...]
    pastes: int = 0
    pasted_at: datetime | None = None
    enters: int = 0
    entered_at: datetime | None = None
    anew: bool = False
    """It was submitted before and left no trace."""
    placeholder: str = ""
    """What the composer showed in its place, if it did."""
    placeholder_is_new: bool = False
    """It was nowhere else on the screen."""
    above: str = ""
    """A digest of what stood above the composer when the text was seen in it."""
    heard: bool = False
    """The program itself told that it accepted it."""
    told: tuple[int, int] = (0, 0)
    """How many of the steps, and of the agent's own notes, were told to the task's history."""

    @classmethod
    def intended(cls, run: Paper, text: str, mark: str, evidence: str, number: int = 1) -> Submission:
        """A new one, on the disk."""
        write_private(_text_file(run), text)
        step = Step(phase=Phase.INTENDED, at=now(), evidence=evidence)
        return cls(tag=run.tag, mark=mark, round=number, steps=(step,)).kept(run)

    @classmethod
    def of(cls, run: Paper) -> Submission | None:
        """The run's submission, if there is one."""
        try:
            return cls.model_validate_json(_file(run).read_bytes())
        except FileNotFoundError:
            return None

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return self.steps[-1].phase

    @property
    def since(self) -> float:
        """Seconds since its last step."""
        return (now() - self.steps[-1].at).total_seconds()

    @property
    def accepted_unheard(self) -> Event | None:
        """That it was accepted, where the program did not tell it."""
        if self.phase is not Phase.ACCEPTED or self.heard:
            return None
        return Event(EventKind.ACCEPTED, at=self.entered_at or self.steps[-1].at, origin="screen")

    def tell(self, run: Paper, notes: Sequence[str]) -> tuple[Submission, tuple[str, ...]]:
        """What is new for the task's history: the steps that were made, and what the agent reported on its way."""
        steps, known = self.told
        facts = [f"{step.phase}: {step.evidence}" for step in self.steps[steps:] if step.evidence]
        facts += [f"progress: {note}" for note in notes[known:]]
        told = (len(self.steps), len(notes))
        return (self.changed(run, told=told) if told != self.told else self), tuple(facts)

    def text(self, run: Paper) -> str:
        """What is to be submitted."""
        return _text_file(run).read_bytes().decode()

    def reached(self, run: Paper, phase: Phase, evidence: str, **changes: object) -> Submission:
        """The next step, on the disk."""
        return self.stepped(phase, evidence, **changes).kept(run)

    def stepped(self, phase: Phase, evidence: str, **changes: object) -> Submission:
        """The next step, which only its caller knows of."""
        step = Step(phase=phase, at=now(), evidence=evidence)
        return self.model_copy(update={"steps": (*self.steps, step), **changes})

    def changed(self, run: Paper, **changes: object) -> Submission:
        """The same with these changes, on the disk."""
        return self.model_copy(update=changes).kept(run)

    def kept(self, run: Paper) -> Submission:
        """This, on the disk."""
        write_private(_file(run), self.model_dump_json(indent=1) + "\n")
        return self


def _file(run: Paper) -> Path:
    return run.folder / "submission.json"


def _text_file(run: Paper) -> Path:
    return run.folder / "pasted"
