"""How well an agent works, as the ends of its tasks tell."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, computed_field

FORMAT = '{"succeeded":%d,"failed":%d,"seconds":%.3f,"last_ended":%d}'
"""How the broker keeps it, the moment in milliseconds; its scripts rely on the two numbers that come first."""


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

    @property
    def told(self) -> str:
        """It as the broker keeps it."""
        moment = self.last_ended.timestamp() * 1000 if self.last_ended else 0
        return FORMAT % (self.succeeded, self.failed, self.seconds, moment)

    def after(self, end: Literal["succeeded", "failed"], account: Mapping[str, str]) -> Self:
        """With one more task, whose record tells when it began and ended."""
        started, ended = (int(account.get(moment, 0)) for moment in ("started_at", "finished_at"))
        began = started and started >= int(account.get("assigned_at", 0))
        return self.model_copy(
            update={
                end: getattr(self, end) + 1,
                "seconds": self.seconds + ((ended - started) / 1000 if began else 0.0),
                "last_ended": datetime.fromtimestamp(ended / 1000, UTC),
            }
        )
