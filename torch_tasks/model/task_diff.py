"""What a task changed in its git tree, as its agent's machine shows it."""

from __future__ import annotations

from torch_tasks.model.fields import KeptText, Model

LONGEST = 200_000
"""So many bytes of a diff are shown."""


class TaskDiff(Model):
    """The changes of a task since it began, committed or not."""

    why_not: str = ""
    """Why there is nothing to see; empty if there is."""
    branch: str | None = None
    base: str = ""
    """The commit from which the task began."""
    text: KeptText = ""
    """As git writes it."""
    is_cut: bool = False
    """There is more of it."""
    new_files: tuple[str, ...] = ()
    """Files that git does not know yet: they are no part of the text."""
