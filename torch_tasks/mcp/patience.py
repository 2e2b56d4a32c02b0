"""How long a tool may take, which each client decides for itself."""

from __future__ import annotations

from collections.abc import Mapping

PATIENCE_SECONDS: Mapping[str, float] = {
    "claude-code": 240.0,
    "gemini-cli-mcp-client": 240.0,
}
"""By the beginning of the name that a client gives itself: well within what it waits for a tool by default."""
LEAST_PATIENCE_SECONDS = 50.0
"""For other clients, as Codex and OpenCode: they give up after a minute, unless they are configured otherwise."""


def patience(client: str | None) -> float:
    """For how many seconds at most a tool waits for the client of this name."""
    known = (seconds for name, seconds in PATIENCE_SECONDS.items() if client and client.startswith(name))
    return next(known, LEAST_PATIENCE_SECONDS)
