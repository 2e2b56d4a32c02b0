"""What becomes of an agent's request for permission: by the task's own word, else by the kind's TOML."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch_tasks.model.task import Permissions, Question
from torch_tasks.workers.programs.config import PermissionsConfig


def decide(question: Question, wanted: Permissions | None, config: PermissionsConfig) -> tuple[bool, str] | None:
    """Whether it is allowed, and what says so; None if a person has to say it.

    ``wanted`` is the task's own word. What is no request for permission is always asked. A pattern that denies wins
    over everything.
    """
    subject = question.subject
    if not subject:
        return None
    for pattern in config.deny:
        if fnmatchcase(subject, pattern):
            return False, f"the pattern {pattern!r}"
    for pattern in config.allow:
        if fnmatchcase(subject, pattern):
            return True, f"the pattern {pattern!r}"
    mode = wanted or config.mode
    if mode is Permissions.ASK:
        return None
    return mode is Permissions.ALLOW, "the task's permissions" if wanted else "the kind's permissions"
