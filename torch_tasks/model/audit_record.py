"""What the audit keeps of one act or decision."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime, Field

from torch_tasks.model.fields import KeptText, Model, now


class AuditOutcome(StrEnum):
    BEGUN = "begun"
    """It is about to be done: noted first, as it must not be done without a note."""
    DONE = "done"
    REFUSED = "refused"
    """The policy does not let the caller."""
    FAILED = "failed"


class AuditRecord(Model):
    """Who did what, on whose behalf, with what, by which rule, and how it ended."""

    at: AwareDatetime = Field(default_factory=now)
    who: str
    """The caller's kind and name: ``agent:dev-1``, ``person:operator``, ``node:build-1``."""
    role: str | None = None
    behalf: str | None = None
    """For whom it is done, if for another."""
    what: str
    """The operation, as ``task.cancel``; or what happened, as ``agent.started``."""
    on: KeptText = ""
    """What it is about, as ``task 0f3a… agent dev-2``."""
    rule: str = ""
    """The rules of the policy that let it, and where they stand."""
    outcome: AuditOutcome = AuditOutcome.DONE
    why: KeptText = ""
    """The reason of a refusal, or how it failed."""
    digest: str = ""
    """Of the request, the same for the same request; its texts are not kept."""
    node: str
    pid: int
    """The process that did it, on this machine."""
