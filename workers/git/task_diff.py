"""What a task changed in its git tree, for people who look at it; git runs nothing of the repository's meanwhile."""

from __future__ import annotations

import os

from torch_tasks.errors import GitRefused
from torch_tasks.model.task_diff import LONGEST, TaskDiff
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.git.task_trees import TaskTreeNote, read_note
from torch_tasks.workers.git.tree import Tree, branch_or_commit

_MOST_NEW_FILES = 200
_PATCH = ("--no-color", "--no-ext-diff", "--no-textconv", "--submodule=short")


def diff_of(attempt: AttemptFolder) -> TaskDiff:
    """The changes of an attempt, in its tree if its branch is checked out there, else on its branch."""
    note, result = read_note(attempt.tree_file), attempt.result()
    if note is None or not note.base:
        return TaskDiff(why_not="it was not done in a git tree that Torch looked at")
    try:
        return _shown(note, result.branch if result else None)
    except GitRefused as refused:
        return TaskDiff(why_not=str(refused))


def _shown(note: TaskTreeNote, branch: str | None) -> TaskDiff:
    tree = Tree.around(note.workdir)
    if tree and branch in (None, branch_or_commit(tree.top)):
        new = [one.name for one in tree.status().changes if one.unstaged == "?"]
        return _diff(tree, note, branch or branch_or_commit(tree.top)).model_copy(
            update={"new_files": tuple(new[:_MOST_NEW_FILES])}
        )
    tree = tree or Tree.around(note.repository)
    if tree is None:
        return TaskDiff(why_not=f"its folder {note.workdir} is gone")
    if not tree.git.succeeds("show-ref", "--verify", "--quiet", f"refs/heads/{branch}"):
        return TaskDiff(why_not=f"its branch {branch} is gone from {tree.top}")
    return _diff(tree, note, branch, f"refs/heads/{branch}")


def _diff(tree: Tree, note: TaskTreeNote, branch: str | None, *end: str) -> TaskDiff:
    text = tree.git.run("diff", *_PATCH, "--end-of-options", note.base, *end, "--", most=LONGEST + 1)
    shown = os.fsdecode(text[:LONGEST]).encode(errors="replace").decode(errors="replace")
    return TaskDiff(branch=branch, base=note.base, text=shown, is_cut=len(text) > LONGEST)
