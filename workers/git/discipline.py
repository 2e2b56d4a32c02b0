"""Git discipline: a loop that commits and reports on the trees of this node's agents."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psutil

from torch_tasks.errors import GitRefused, TaskNotFound, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import now
from torch_tasks.store.git_reports import Committed, GitReport, GitReports, TreeReport, shown
from torch_tasks.system.files import write_private
from torch_tasks.system.loops import Loop
from torch_tasks.workers.git.box import GitBox
from torch_tasks.workers.git.commit import CommitOutcome, CommitText, commit_work
from torch_tasks.workers.git.exclusions import CommitFilter
from torch_tasks.workers.git.policy import RolePolicy, git_policy
from torch_tasks.workers.git.task_trees import TaskTreeNote, locked, task_tree_notes
from torch_tasks.workers.git.tree import Change, Git, Status, Tree

log = logging.getLogger(__name__)

#: How many of the files left out a report names.
_NAMED = 50


class GitDiscipline:
    """Commits at intervals what has been uncommitted for too long, and reports on the trees."""

    def __init__(self, kept: Callable[[], Collection[str]], fleet: Fleet) -> None:
        self._kept = kept
        self._fleet = fleet
        every = fleet.settings.git_seconds
        self.loop = Loop("git discipline", self._look, pause=every, longest_retry_seconds=every)
        self._filters: dict[tuple[Path, str], CommitFilter] = {}

    def _look(self) -> None:
        policies = git_policy()
        node, kept = self._fleet.settings.node, self._kept()
        here = [info for info in self._fleet.registry.agents() if info.node == node]
        ours = [info for info in here if info.online or info.agent_id in kept]
        looked_after, seen = set(), dict[Path, str]()
        for info in ours:
            policy = policies.of(info.role)
            if policy.enabled and (report := self._report(info, policy, seen)):
                looked_after.add(info.agent_id)
                write_private(self._file(info), report.model_dump_json())
                GitReports(self._fleet.client).put(report)
            if self.loop.is_stopping:
                return
        GitReports(self._fleet.client).drop(node, looked_after)
        self._filters = {place: commit_filter for place, commit_filter in self._filters.items() if place[0] in seen}

    def _report(self, info: AgentInfo, policy: RolePolicy, seen: dict[Path, str]) -> GitReport | None:
        """Commit what is due in the agent's trees; None if it has none. A shared tree is the first agent's."""
        trees, trouble = list[TreeReport](), self._missing_tag(info)
        before = {report.tree: report for report in self._last_trees(info)}
        for folder, note in self._folders(info):
            try:
                tree = Tree.around(folder, GitBox.of(info.agent_id, self._fleet.settings))
                if tree is None:
                    continue
                if owner := seen.get(tree.top):
                    if owner != info.agent_id:
                        shared = f"{owner} works in this tree, too, and gets the commits"
                        trees.append(TreeReport(tree=str(tree.top), trouble=shared))
                    continue
                seen[tree.top] = info.agent_id
                with locked(self._fleet.settings, tree):
                    trees.append(self._commit_if_due(tree, note, info, policy, before.get(shown(str(tree.top)))))
            except TorchError as error:
                trouble = str(error)
        if not trees and not trouble:
            return None
        return GitReport(
            agent=info.agent_id,
            role=info.role,
            node=info.node,
            looked_at=now(),
            trees=tuple(trees),
            trouble=trouble,
        )

    def _folders(self, info: AgentInfo) -> Iterator[tuple[Path, TaskTreeNote | None]]:
        """The folders the agent works in, and the trees of its tasks that still exist."""
        yield Path(info.workdir), None
        if info.current_task:
            with contextlib.suppress(TaskNotFound):
                spec = self._fleet.records.get(info.current_task).spec
                if spec.workdir:
                    yield Path(spec.workdir), None
        for note in task_tree_notes(self._fleet.settings):
            if note.agent == info.agent_id:
                try:
                    if self._remove_if_finished(note):
                        continue
                except GitRefused as refused:
                    log.warning("task %s: its tree was not removed: %s", note.task, refused)
                yield note.workdir, note

    def _commit_if_due(
        self, tree: Tree, note: TaskTreeNote | None, info: AgentInfo, policy: RolePolicy, before: TreeReport | None
    ) -> TreeReport:
        commit_filter = self._filters.setdefault((tree.top, info.role), CommitFilter(policy))
        status = tree.status()
        taken, left = commit_filter.sort(tree, status.changes)
        since = _since(tree, status, taken, before)
        outcome = CommitOutcome()
        due = since is not None and now() - since >= timedelta(minutes=policy.commit_minutes)
        if due and policy.commit_minutes:
            outcome = commit_work(tree, status, taken, commit_filter, policy, self._text_for(info, note))
            if outcome.trouble:
                log.warning("%s: not committed in %s: %s", info.agent_id, tree.top, outcome.trouble)
            if outcome.commits:
                log.info("%s: work committed in %s", info.agent_id, tree.top)
                status = tree.status()
                taken, left = commit_filter.sort(tree, status.changes)
                since = _since(tree, status, taken, None)
        left = [*left, *(one for one in outcome.left_out if one.path not in {known.path for known in left})]
        made = tree.last_commit()
        return TreeReport(
            tree=str(tree.top),
            task=note.task if note else None,
            branch=status.branch,
            uncommitted=len(taken),
            uncommitted_since=since,
            left_out=tuple(left[:_NAMED]),
            left_out_more=max(0, len(left) - _NAMED),
            trouble=outcome.trouble,
            last_commit=Committed(id=made[0], at=made[1], subject=made[2]) if made else None,
            last_tag=tree.last_tag(),
        )

    def _text_for(self, info: AgentInfo, note: TaskTreeNote | None) -> CommitText:
        if note:
            return CommitText(info.agent_id, note.title, note.task)
        if info.current_task:
            with contextlib.suppress(TorchError):
                title = self._fleet.records.get(info.current_task).spec.title
                return CommitText(info.agent_id, title, info.current_task)
        return CommitText(info.agent_id, "")

    def _remove_if_finished(self, note: TaskTreeNote) -> bool:
        """Remove the tree if its task has ended, it holds no other work and no process is in it; whether it is gone."""
        tree = Tree.around(note.workdir)
        if tree is None:
            if not note.workdir.exists():  # it was removed already
                shutil.rmtree(self._fleet.settings.state.worktrees / note.task)
            return True
        with locked(self._fleet.settings, tree):
            if not self._is_finished_with(note, tree):
                return False
            Git(note.repository).run("worktree", "remove", str(tree.top))
            shutil.rmtree(self._fleet.settings.state.worktrees / note.task)
            log.info("task %s: its tree %s was clean and has been removed", note.task, tree.top)
            return True

    def _is_finished_with(self, note: TaskTreeNote, tree: Tree) -> bool:
        with contextlib.suppress(TaskNotFound):
            if not self._fleet.records.get(note.task).state.ended:
                return False
        status = tree.status()
        return not (status.changes or tree.obstacle(status) or _is_in_use(tree.top))

    def _file(self, info: AgentInfo) -> Path:
        return self._fleet.settings.state.agent(info.agent_id) / "git.json"

    def _last_trees(self, info: AgentInfo) -> tuple[TreeReport, ...]:
        try:
            return GitReport.model_validate_json(self._file(info).read_bytes()).trees
        except (OSError, ValueError):  # none yet, or of another version
            return ()

    def _missing_tag(self, info: AgentInfo) -> str | None:
        try:
            return (self._fleet.settings.state.agent(info.agent_id) / "untagged").read_text()
        except OSError:
            return None


def _since(tree: Tree, status: Status, taken: list[Change], before: TreeReport | None) -> datetime | None:
    """Since when there is uncommitted work: by its oldest file, or since it was first reported, if that is earlier.

    A file that is written again and again is never old, but the work in it is.
    """
    if not taken:
        return None
    made = tree.last_commit()
    signs = [tree.oldest(taken)]
    if before and (made[0] if made else None) == (before.last_commit.id if before.last_commit else None):
        signs.append(before.uncommitted_since)
    return min((sign for sign in signs if sign), default=now())


def _is_in_use(folder: Path) -> bool:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                return True
    return False
