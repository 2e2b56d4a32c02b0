"""What a caller asked for that the policy does not let it do."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from torch_tasks.model.asker import Asker
from torch_tasks.model.fields import KeptText, Model, now


class Denial(Model):
    operation: str
    by: Asker
    why: KeptText
    """The rule that decided, and where it stands."""
    at: AwareDatetime = Field(default_factory=now)
