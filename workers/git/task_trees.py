"""A task's branch, its tree, what it changed there, and the tag that it gets when it ends verified."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel

from torch_tasks.errors import GitRefused, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import is_made_id, slug_of
from torch_tasks.model.task import DiffStat, TaskSpec, TaskState
from torch_tasks.settings import Settings
from torch_tasks.system.files import exclusive, make_folder, write_private
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.git.box import GitBox
from torch_tasks.workers.git.commit import CommitOutcome, CommitText, author_settings, commit_work
from torch_tasks.workers.git.exclusions import CommitFilter
from torch_tasks.workers.git.policy import TASK_BRANCH, RolePolicy, git_policy
from torch_tasks.workers.git.tree import Tree, branch_or_commit

log = logging.getLogger(__name__)


class TaskTreeNote(BaseModel):
    """What Torch keeps about a task's tree, in a file: where it is, and whose."""

    task: str
    title: str
    agent: str
    role: str
    workdir: Path
    repository: Path
    """The tree from which the task's own one was added; the same tree if the task has none of its own."""
    base: str = ""
    """The commit from which the task began."""


class TaskTrees:
    """Prepares branches and trees for tasks that begin, and tags verified ends."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._settings = fleet.settings

    def begin(
        self, spec: TaskSpec, run: AttemptFolder, info: AgentInfo, *, count_changes: bool
    ) -> tuple[TaskSpec, list[str]]:
        """The task with the folder to do it in, and notes for its history.

        If git refuses the branch or tree, a note says why, and the task is done where it would be without a policy.
        With ``count_changes``, what the task changes is counted without a policy, too.
        """
        try:
            policy = git_policy().of(info.role)
            if not (policy.enabled or count_changes):
                return spec, []
            box = GitBox.of(info.agent_id, self._settings)
            tree = Tree.around(Path(spec.workdir or info.workdir), box)
            if tree is None:
                return spec, []
            note = TaskTreeNote(
                task=spec.id,
                title=spec.title,
                agent=info.agent_id,
                role=info.role,
                workdir=Path(spec.workdir or info.workdir),
                repository=tree.top,
                base=tree.base(),
            )
            notes: list[str] = []
            if policy.enabled:
                with locked(self._settings, tree):
                    note, notes = self._prepared(note, tree, policy)
        except TorchError as error:
            return spec, [f"no branch of its own: {error}"]
        write_private(run.tree_file, note.model_dump_json())
        return self.resume(spec, run), notes

    def resume(self, spec: TaskSpec, run: AttemptFolder) -> TaskSpec:
        """The task with the folder in which it was begun."""
        note = read_note(run.tree_file)
        if note is None or str(note.workdir) == spec.workdir or note.workdir == note.repository:
            return spec
        return spec.model_copy(update={"workdir": str(note.workdir)})

    def _prepared(self, note: TaskTreeNote, tree: Tree, policy: RolePolicy) -> tuple[TaskTreeNote, list[str]]:
        branch = TASK_BRANCH.replace("{task}", _ref_name(note))
        if policy.worktree or policy.task_branch:  # an earlier try may have made it
            base = tree.git.ask("merge-base", "HEAD", f"refs/heads/{branch}") or note.base
            note = note.model_copy(update={"base": base})
        if policy.worktree:
            place = self._add_worktree(note, tree, branch, policy)
            inside = note.workdir.resolve().relative_to(tree.top.resolve())
            workdir = place / inside if (place / inside).is_dir() else place
            return note.model_copy(update={"workdir": workdir}), [f"branch {branch} in the tree {place}"]
        if policy.task_branch:
            self._require_alone(note, tree)
            _switch(tree, branch, policy)
            return note, [f"branch {branch} in {tree.top}"]
        return note, []

    def _require_alone(self, note: TaskTreeNote, tree: Tree) -> None:
        """Refuse to change the branch under another agent's task."""
        for info in self._fleet.registry.agents():
            beside = info.node == self._settings.node and info.agent_id != note.agent and info.current_task
            if beside and Path(info.workdir).resolve().is_relative_to(tree.top.resolve()):
                there = Tree.around(Path(info.workdir))
                if there and there.top == tree.top:
                    raise GitRefused(f"{info.agent_id} works in {tree.top}, too; worktree = true keeps them apart")

    def _add_worktree(self, note: TaskTreeNote, tree: Tree, branch: str, policy: RolePolicy) -> Path:
        folder = self._settings.state.worktrees / note.task
        make_folder(folder.parent)
        make_folder(folder)
        place = folder / tree.top.name
        if not (place / ".git").exists():
            known = tree.git.succeeds("show-ref", "--verify", "--quiet", f"refs/heads/{branch}")
            words = [str(place), branch] if known else ["--no-track", "-b", branch, str(place), "HEAD"]
            tree.git.change("worktree", "add", "--quiet", *words, seconds=policy.hook_seconds, adds=folder)
        write_private(folder / "note.json", note.model_copy(update={"workdir": place}).model_dump_json())
        return place

    def end(self, run: AttemptFolder, account: Mapping[str, str], info: AgentInfo) -> None:
        """Tag what the task made if it succeeded and all its evidence passed; a second call changes nothing."""
        note, result = read_note(run.tree_file), run.result()
        if note is None or result is None or account.get("state") != TaskState.SUCCEEDED:
            return
        if not result.succeeded or not all(one.passed for one in result.evidence):
            return
        why = self._settings.state.agent(info.agent_id) / "untagged"
        try:
            policy, box = git_policy().of(info.role), GitBox.of(info.agent_id, self._settings)
            tree = Tree.around(note.workdir, box)
            if tree is None or not (policy.enabled and policy.tag):
                return
            with locked(self._settings, tree):
                self._tag(note, tree, policy, "\n".join(one.detail.splitlines()[0] for one in result.evidence))
            why.unlink(missing_ok=True)
        except TorchError as error:
            log.warning("%s: no tag for its verified end: %s", note.task, error)
            write_private(why, f"the verified end of task {note.task} has no tag: {error}")

    def _tag(self, note: TaskTreeNote, tree: Tree, policy: RolePolicy, evidence: str) -> None:
        """Commit what the task has not committed, which the evidence is about, too; then tag the commit."""
        outcome = commit_task_work(note, tree, policy)
        if outcome.trouble:
            raise GitRefused(outcome.trouble)
        if tree.head() is None:
            raise GitRefused(f"{tree.top} has no commit")
        name = f"stable-{_ref_name(note)}-"
        if tree.git.ask("tag", "--list", f"{name}*", "--points-at", "HEAD"):
            return
        left = "".join(f"Left out: {one.path} ({one.why})\n" for one in outcome.left_out)
        message = f"{note.title}\n\n{evidence}\n{left}\nTorch-Agent: {note.agent}\nTorch-Task: {note.task}\n"
        given, author = message.encode(errors="replace"), author_settings(tree, note.agent)
        words = ("tag", "--annotate", "--cleanup=verbatim", "--file=-", f"{name}{datetime.now(UTC):%Y%m%d-%H%M%S}")
        tree.git.change(*words, stdin=given, seconds=policy.hook_seconds, settings=author)


def commit_task_work(note: TaskTreeNote, tree: Tree, policy: RolePolicy) -> CommitOutcome:
    commit_filter, status = CommitFilter(policy), tree.status()
    taken, left = commit_filter.sort(tree, status.changes)
    if not taken:
        return CommitOutcome(left_out=tuple(left))
    words = CommitText(note.agent, note.title, note.task)
    outcome = commit_work(tree, status, taken, commit_filter, policy, words)
    return CommitOutcome(outcome.commits, (*left, *outcome.left_out), outcome.trouble)


def _switch(tree: Tree, branch: str, policy: RolePolicy) -> None:
    """Check the branch out. Files change only if the branch exists already, and never so that work is lost."""
    status = tree.status()
    if status.branch == branch:
        return
    if why := tree.operation_under_way(status):
        raise GitRefused(f"the branch in {tree.top} cannot be changed: {why}")
    known = tree.git.succeeds("show-ref", "--verify", "--quiet", f"refs/heads/{branch}")
    words = ["--no-guess", branch] if known else ["--no-track", "-c", branch]
    tree.git.change("switch", "--quiet", *words, seconds=policy.hook_seconds)


def changes_of(attempt: AttemptFolder) -> tuple[str | None, DiffStat | None]:
    """The branch of the attempt's tree and how much has changed there since the task began; None where unknown."""
    note = read_note(attempt.tree_file)
    if note is None or not note.base:
        return None, None
    try:
        tree = Tree.around(note.workdir)
        return (branch_or_commit(tree.top), tree.changes_since(note.base)) if tree else (None, None)
    except TorchError as error:
        log.warning("task %s: its changes cannot be counted: %s", note.task, error)
        return None, None


def _ref_name(note: TaskTreeNote) -> str:
    """The task in a form that git accepts in a name: its own id, or its title and a part of the id that Torch made."""
    if is_made_id(note.task):
        return "-".join(filter(None, (slug_of(note.title), note.task[:8])))
    ref = re.sub(r"\.{2,}", "-", note.task).rstrip(".")
    return f"{ref.removesuffix('.lock')}-lock" if ref.endswith(".lock") else ref


def task_tree_notes(settings: Settings) -> Iterator[TaskTreeNote]:
    for file in sorted(settings.state.worktrees.glob("*/note.json")):
        if note := read_note(file):
            yield note


@contextmanager
def locked(settings: Settings, tree: Tree) -> Iterator[None]:
    """Keep Torch's other processes on this machine away from the tree's repository."""
    name = sha256(str(tree.repository).encode(errors="surrogateescape")).hexdigest()[:16]
    with exclusive(settings.state.git_lock(name)):
        yield


def read_note(file: Path) -> TaskTreeNote | None:
    try:
        return TaskTreeNote.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
