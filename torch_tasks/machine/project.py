"""The project that a folder belongs to."""

from __future__ import annotations

from pathlib import Path


def project_of(folder: Path) -> str:
    """The name of the git tree around the folder, the same for all its worktrees, or else of the folder."""
    folder = folder.absolute()
    for place in (folder, *folder.parents):
        mark = place / ".git"
        if mark.is_dir():
            return place.name
        if mark.is_file():
            return _of_worktree(place, mark)
    return folder.name or "root"


def _of_worktree(place: Path, mark: Path) -> str:
    git_dir = place / mark.read_text().removeprefix("gitdir:").strip()
    common = git_dir / "commondir"
    if not common.exists():
        return place.name
    root = (git_dir / common.read_text().strip()).resolve()
    return root.parent.name if root.name == ".git" else root.name.removesuffix(".git")
