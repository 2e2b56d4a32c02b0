"""What of a workdir is shown to whoever goes on with a task there."""

from __future__ import annotations

from pathlib import Path

from torch_tasks.workers.git.command import Git


def branch(workdir: Path) -> str | None:
    """The branch that is checked out, or the commit; nothing if this is no git tree."""
    git = Git(workdir)
    return git.ask("symbolic-ref", "--quiet", "--short", "HEAD") or git.ask("rev-parse", "--short", "HEAD")


def changes(workdir: Path, limit: int) -> str | None:
    """What is not committed: the state of the files, then the diff, at most so many characters of it."""
    git = Git(workdir)
    status = git.ask("status", "--short", "--branch")
    if status is None:
        return None
    text = f"{status}\n\n{git.ask('diff', 'HEAD') or ''}".strip()[:limit]
    return text.encode(errors="surrogateescape").decode(errors="replace")
