"""What git says of a workdir."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SECONDS = 5.0


def branch(workdir: Path) -> str | None:
    """The branch that is checked out, or the commit; nothing if this is no git tree."""
    return _git(workdir, "symbolic-ref", "--quiet", "--short", "HEAD") or _git(workdir, "rev-parse", "--short", "HEAD")


def changes(workdir: Path, limit: int) -> str | None:
    """What is not committed: the state of the files, then the diff, at most so many characters of it."""
    status = _git(workdir, "status", "--short", "--branch")
    if status is None:
        return None
    diff = _git(workdir, "diff", "HEAD") or ""
    return f"{status}\n\n{diff}".strip()[:limit]


def _git(workdir: Path, *words: str) -> str | None:
    # Without optional locks, or looking would disturb an agent that commits at this moment.
    argv = ["git", "--no-optional-locks", "-C", str(workdir), *words]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").rstrip() if done.returncode == 0 else None
