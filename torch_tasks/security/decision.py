"""Whether a caller may do what it asks for."""

from __future__ import annotations

from torch_tasks.security.rights import Right, Subject


def require(operation: str, right: Right, subject: Subject, also: Right | None = None) -> None:
    """Raise :class:`NotAllowed` if :func:`torch_tasks.caller.caller` has no such right; the error names the rule."""
