"""What becomes of what an agent's program wants to be allowed."""

from __future__ import annotations

from enum import StrEnum


class Permissions(StrEnum):
    """What becomes of an agent's request for permission."""

    ASK = "ask"
    """The task waits until a person answers."""
    ALLOW = "allow"
    DENY = "deny"
