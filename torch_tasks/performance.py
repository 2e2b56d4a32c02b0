"""How well an agent works, as the ends of its tasks tell."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, computed_field


class Performance(BaseModel):
    """How an agent's tasks ended, as far as that was up to the agent."""

    PRIOR: ClassVar = (4, 5)
    """The successes and ends that every agent is credited with, so that a new one is neither best nor worst."""

    model_config = ConfigDict(frozen=True)

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    """How long it worked on them."""
    last_ended: AwareDatetime | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def success_rate(self) -> float:
        """The part of its tasks that succeeded, the prior included."""
        succeeded, ended = self.PRIOR
        return round((self.succeeded + succeeded) / (self.succeeded + self.failed + ended), 4)
