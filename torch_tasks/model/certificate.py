"""What was found when a kind's program was tried against a fake model: promise by promise, and as a whole."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict


class ReleaseState(StrEnum):
    """What is known of the release of a program that runs here."""

    CERTIFIED = "certified"
    """All that was promised held, here or in Torch's own tests."""
    UNCERTIFIED = "uncertified"
    """It was never tried."""
    BROKEN = "broken"
    """Something that was promised did not hold."""


class Outcome(StrEnum):
    HELD = "held"
    BROKEN = "broken"
    NOT_APPLICABLE = "not applicable"
    NOT_TRIED = "not tried"
    """Something before it broke, on which it depends."""


class PromiseResult(BaseModel):
    """How one promise was kept."""

    model_config = ConfigDict(frozen=True)

    promise: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0


class Recording(BaseModel):
    """A screen that no rule of the kind knew, or on which a promise broke."""

    model_config = ConfigDict(frozen=True)

    promise: str
    why: str
    title: str
    cursor: tuple[int, int]
    drawn: str
    """The screen with its escape sequences."""


class Certificate(BaseModel):
    """One release of one kind's program, as it was tried on one machine."""

    model_config = ConfigDict(frozen=True)

    kind: str
    program: str
    """Where it is."""
    release: str
    torch: str
    """The release of Torch that tried it, whose word this is."""
    at: AwareDatetime
    network: str
    """What the program could reach."""
    promises: tuple[PromiseResult, ...]
    recordings: tuple[Recording, ...] = ()

    @property
    def broken(self) -> tuple[PromiseResult, ...]:
        """What did not hold."""
        return tuple(result for result in self.promises if result.outcome is Outcome.BROKEN)

    @property
    def release_state(self) -> ReleaseState:
        """What it says of the release."""
        return ReleaseState.BROKEN if self.broken else ReleaseState.CERTIFIED
