"""Commit all the work in a tree, or commit nothing and leave the tree as it was.

Torch prepares a commit in an index of its own, so a hook's refusal, a full disk or kill -9 leaves what the agent has
staged as it is. Just before the commit it stages the same in the tree's index: after a kill -9 in between, files are
staged that the next commit takes.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch_tasks.errors import GitRefused
from torch_tasks.store.git_reports import LeftOut
from torch_tasks.workers.git.exclusions import CommitFilter, blob
from torch_tasks.workers.git.policy import RolePolicy
from torch_tasks.workers.git.tree import Change, Status, Tree, readable_name

_ABSENT, _SUBMODULE = "000000", "160000"
#: How many changes a commit's message lists.
_LISTED = 20


@dataclass(frozen=True)
class CommitText:
    """What a commit's message says; the agent is the author if git's configuration names none."""

    agent: str
    title: str
    task: str | None = None

    @property
    def ending(self) -> str:
        """The end of the message, by which Torch recognizes its commits."""
        return f"Torch-Agent: {self.agent}\n" + (f"Torch-Task: {self.task}\n" if self.task else "")


@dataclass(frozen=True)
class CommitOutcome:
    """What Torch committed in a tree, and what it did not."""

    commits: int = 0
    left_out: tuple[LeftOut, ...] = ()
    trouble: str | None = None
    """Why Torch did not commit some or all of it."""


class Version(NamedTuple):
    """A file as git keeps it."""

    mode: str
    blob: str

    @property
    def is_file(self) -> bool:
        return self.mode not in (_ABSENT, _SUBMODULE)


@dataclass(frozen=True)
class IndexEntry:
    """A path whose version in an index differs from the one in the commit."""

    committed: Version
    indexed: Version


Entries = Mapping[bytes, IndexEntry]


def commit_work(
    tree: Tree, status: Status, taken: list[Change], commit_filter: CommitFilter, policy: RolePolicy, words: CommitText
) -> CommitOutcome:
    """Commit these changes on a branch of the agent's own; what only the index holds gets a commit before the rest."""
    if why := tree.obstacle(status):
        return CommitOutcome(trouble=why)
    new = sum(change.unstaged == "?" for change in taken)
    if new > policy.new_files_limit:
        limit = f"the limit is {policy.new_files_limit:,}"
        return CommitOutcome(trouble=f"there are {new:,} new files, {limit}: is something missing in .gitignore?")
    untracked_on_purpose = {change.path for change in taken if change.staged == "D"}
    taken = [change for change in taken if change.unstaged != "?" or change.path not in untracked_on_purpose]
    outcome = CommitOutcome()
    try:
        with _on_own_branch(tree, status, policy, words.agent):
            if any(change.mixed for change in taken):
                outcome = _Commit(tree, commit_filter, policy, words).of_staged()
            latest = _Commit(tree, commit_filter, policy, words).of_all(taken)
            return replace(latest, commits=outcome.commits + latest.commits)
    except GitRefused as refused:
        return replace(outcome, trouble=str(refused))
    except OSError as error:  # no room for an index of our own
        return replace(outcome, trouble=f"Torch cannot prepare a commit: {error}")


@contextmanager
def _on_own_branch(tree: Tree, status: Status, policy: RolePolicy, agent: str) -> Iterator[None]:
    """Leave a protected branch for one of the agent's own; return if nothing was committed. No file changes by this."""
    before = status.branch
    if before is None or not tree.is_protected(before, policy):
        yield
        return
    branch, exists = _own_branch(tree, policy.branch.replace("{agent}", agent))
    how = "-C" if exists else "-c"
    try:
        tree.git.change("switch", "--quiet", "--no-track", how, branch, seconds=policy.hook_seconds)
        yield
    finally:
        here = tree.git.ask("symbolic-ref", "--quiet", "--short", "HEAD")
        if here == branch and tree.head() == status.head:
            tree.git.run("symbolic-ref", "-m", "torch: nothing was committed", "HEAD", f"refs/heads/{before}")
            if not exists and status.head:
                tree.git.run("branch", "--quiet", "-D", branch)


def _own_branch(tree: Tree, wanted: str) -> tuple[str, bool]:
    """The first of ``wanted``, ``wanted-2``, … that can point here without losing commits, and whether it exists."""
    used = (tree.git.ask("worktree", "list", "--porcelain") or "").splitlines()
    for number in itertools.count(1):
        branch = wanted if number == 1 else f"{wanted}-{number}"
        if not tree.git.succeeds("show-ref", "--verify", "--quiet", f"refs/heads/{branch}"):
            return branch, False
        elsewhere = f"branch refs/heads/{branch}" in used
        if not elsewhere and tree.git.succeeds("merge-base", "--is-ancestor", f"refs/heads/{branch}", "HEAD"):
            return branch, True
    raise AssertionError


class _Commit:
    """One commit that is being prepared."""

    def __init__(self, tree: Tree, commit_filter: CommitFilter, policy: RolePolicy, words: CommitText) -> None:
        self._tree = tree
        self._filter = commit_filter
        self._policy = policy
        self._text = words
        self._base = tree.base()

    def of_staged(self) -> CommitOutcome:
        with self._own_index() as index:
            entries, left = self._without_refused(index)
            if entries:
                self._commit(index, entries, "what is staged")
                self._stage_changes_of_hooks(index, entries)
            return CommitOutcome(commits=int(bool(entries)), left_out=tuple(left))

    def of_all(self, changes: Sequence[Change]) -> CommitOutcome:
        with self._own_index() as index:
            self._add(index, changes)
            entries, left = self._without_refused(index)
            if not entries:
                return CommitOutcome(left_out=tuple(left))
            before = self._entries(self._tree.index, self._base)
            self._stage({path: entry.indexed for path, entry in entries.items()})
            try:
                self._commit(index, entries, "")
            except GitRefused:
                self._unstage(entries, before, changes)
                raise
            self._stage_changes_of_hooks(index, entries)
            return CommitOutcome(commits=1, left_out=tuple(left))

    def _add(self, index: Path, changes: Sequence[Change]) -> None:
        """Put the changed files as they are now into the index."""
        git = self._tree.git.with_index(index)
        gone = [change.path for change in changes if change.staged == "D" or not self._tree.has(change)]
        there = [change.path for change in changes if change.path not in set(gone)]
        nothing = Version("0", "0" * len(self._base))
        git.change("update-index", "-z", "--index-info", stdin=_index_info(dict.fromkeys(gone, nothing)))
        git.change("update-index", "-z", "--add", "--remove", "--stdin", stdin=b"".join(path + b"\0" for path in there))

    @contextmanager
    def _own_index(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="torch-index-", dir=self._tree.git_dir) as folder:
            index = Path(folder) / "index"
            if self._tree.index.exists():
                # With its time, by which git recognizes files that were written in the same moment.
                shutil.copy2(self._tree.index, index)
            yield index

    def _entries(self, index: Path, base: str) -> dict[bytes, IndexEntry]:
        """What differs between this index and that commit."""
        words = ("--cached", "--raw", "-z", "--no-renames", "--ita-invisible-in-index", base)
        fields = self._tree.git.with_index(index).run("diff-index", *words)
        parts = iter(fields.split(b"\0")[:-1])
        found = {}
        for meta, path in zip(parts, parts, strict=True):
            old_mode, mode, old, new, _ = meta.decode().removeprefix(":").split(" ")
            found[path] = IndexEntry(Version(old_mode, old), Version(mode, new))
        return found

    def _without_refused(self, index: Path) -> tuple[dict[bytes, IndexEntry], list[LeftOut]]:
        """The entries to commit; those that the filter refuses are reset in the index, and returned with the reason."""
        entries, left = self._entries(index, self._base), list[LeftOut]()
        for path, why in list(self._refused(entries)):
            left.append(LeftOut(path=readable_name(path), why=why))
            committed = {path: entries.pop(path).committed}
            self._tree.git.with_index(index).change("update-index", "-z", "--index-info", stdin=_index_info(committed))
        return entries, left

    def _refused(self, entries: Entries) -> Iterator[tuple[bytes, str]]:
        """The entries that the filter refuses, by their blobs, since the files may change meanwhile."""
        files = {path: entry for path, entry in entries.items() if entry.indexed.is_file}
        asked = "".join(f"{entry.indexed.blob}\n" for entry in files.values()).encode()
        sizes = self._tree.git.run("cat-file", "--batch-check=%(objectsize)", stdin=asked).splitlines()
        for (path, entry), size in zip(files.items(), sizes, strict=True):
            judge = self._filter
            why = judge.reason_by_name(path) or judge.reason_by_size(int(size)) or self._reason_by_text(entry)
            if why:
                yield path, why

    def _reason_by_text(self, entry: IndexEntry) -> str | None:
        old = entry.committed.blob if entry.committed.is_file else None
        return self._filter.reason_by_text(blob(self._tree, entry.indexed.blob), lambda: blob(self._tree, old))

    def _commit(self, index: Path, entries: Entries, part: str) -> None:
        git = self._tree.git.with_index(index)
        stat = ("--no-ext-diff", "--no-textconv", "--no-color", "--stat=100", f"--stat-count={_LISTED}")
        listed = git.run("diff", "--cached", *stat).decode(errors="replace")
        title = self._text.title or _title_of(entries)
        subject = f"Progress: {title}" + (f" ({part})" if part else "")
        message = f"{subject}\n\n{listed}\n{self._text.ending}"
        self._require_base(self._tree.base())
        given, author = message.encode(errors="replace"), author_settings(self._tree, self._text.agent)
        words = ("commit", "--quiet", "--cleanup=verbatim", "--file=-")
        git.change(*words, stdin=given, seconds=self._policy.hook_seconds, settings=author)
        self._undo_if_overtaken()

    def _undo_if_overtaken(self) -> None:
        """Undo our commit if somebody else's came just before it, whose changes ours would revert."""
        git = self._tree.git
        since = "HEAD" if self._base == self._tree.empty_tree() else f"{self._base}..HEAD"
        made = git.run("rev-list", "--first-parent", since).decode().split()
        if len(made) == 1:
            return
        if self._text.ending in git.run("log", "-1", "--format=%B", made[-1]).decode(errors="replace"):
            return  # ours came first, and a hook added the others
        ours, theirs = git.run("rev-parse", "HEAD", "HEAD^").decode().split()
        git.run("update-ref", "-m", "torch: taken back", "HEAD", theirs, ours)
        self._require_base(theirs)

    def _require_base(self, found: str) -> None:
        if found != self._base:
            raise GitRefused(f"another commit was made in {self._tree.top} meanwhile; the next look builds on it")

    def _stage(self, wanted: Mapping[bytes, Version]) -> None:
        self._tree.git.change("update-index", "-z", "--index-info", stdin=_index_info(wanted))
        with suppress(GitRefused):  # it fails if a file has unstaged changes, which does not matter here
            self._tree.git.change("update-index", "-q", "--refresh")

    def _unstage(self, entries: Entries, before: Entries, changes: Iterable[Change]) -> None:
        """Restore what was staged before, except what was staged or committed meanwhile."""
        if self._tree.base() != self._base:
            return
        current = self._entries(self._tree.index, self._base)
        ours = [path for path, entry in entries.items() if path in current and current[path].indexed == entry.indexed]
        self._stage({path: before[path].indexed if path in before else entries[path].committed for path in ours})
        announced = [change.path for change in changes if (change.staged, change.unstaged) == (".", "A")]
        if announced:
            words = ("--literal-pathspecs", "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
            self._tree.git.change(*words, stdin=b"\0".join(announced))

    def _stage_changes_of_hooks(self, index: Path, entries: Entries) -> None:
        made = self._entries(index, self._base)
        differing = [path for path, entry in made.items() if entries.get(path) != entry]
        if not differing:
            return
        current = self._entries(self._tree.index, "HEAD")
        ours = {path: entries[path].indexed if path in entries else made[path].committed for path in differing}
        unchanged = [path for path, was in ours.items() if path in current and current[path].indexed == was]
        self._stage({path: made[path].indexed for path in unchanged})


def author_settings(tree: Tree, agent: str) -> dict[str, str]:
    """Git settings that name the agent as author where git's configuration names none."""
    names = {"user.name": agent, "user.email": f"{agent}@torch.invalid"}
    return {name: value for name, value in names.items() if not tree.git.ask("config", "--get", name)}


def _index_info(entries: Mapping[bytes, Version]) -> bytes:
    """The input of ``update-index --index-info``; removals come first, to make room."""
    removals_first = sorted(entries.items(), key=lambda item: item[1][0].strip("0") != "")
    return b"".join(f"{mode} {name}\t".encode() + path + b"\0" for path, (mode, name) in removals_first)


def _title_of(entries: Entries) -> str:
    first = readable_name(min(entries))
    first = first if len(first) <= 50 else f"{first[:49]}…"
    return first if len(entries) == 1 else f"{first} and {len(entries) - 1} more"
