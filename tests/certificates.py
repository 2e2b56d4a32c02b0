"""A certificate as a machine keeps it, for tests of what follows from one."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

from torch_tasks.model.certificate import Certificate, Outcome, PromiseResult


def certificate(kind: str, release: str, outcome: Outcome) -> Certificate:
    """The certificate of a program whose prompts came out so."""
    return Certificate(
        kind=kind,
        program=kind,
        release=release,
        torch=version("torch-tasks"),
        at=datetime.now(UTC),
        network="none",
        promises=(PromiseResult(promise="prompts", outcome=outcome),),
    )
