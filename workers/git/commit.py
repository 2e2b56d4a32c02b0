"""A commit of what lies in a tree: everything, or nothing and the tree as it was.

What is to be committed is put together and judged in an index of our own, so the words of a hook, a full disk or our
death leave what the agent has staged as it is. Just before the commit the tree's own index learns what is committed:
who dies in between leaves files staged, which the next commit takes.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch_tasks.errors import GitRefused
from torch_tasks.store.git_reports import LeftOut
from torch_tasks.workers.git.exclusions import CommitFilter, blob, excluded
from torch_tasks.workers.git.policy import RolePolicy
from torch_tasks.workers.git.tree import Change, Git, Status, Tree

_ABSENT, _SUBMODULE = "000000", "160000"
#: As many changes as a message lists.
_LISTED = 20


@dataclass(frozen=True)
class CommitText:
    """What a commit says, and in whose name if the tree's owner has given none."""

    agent: str
    title: str
    task: str | None = None

    @property
    def ending(self) -> str:
        """The end of the message, by which a commit of Torch's is known."""
        return f"Torch-Agent: {self.agent}\n" + (f"Torch-Task: {self.task}\n" if self.task else "")


@dataclass(frozen=True)
class CommitOutcome:
    """What became of the work in a tree."""

    commits: int = 0
    left_out: tuple[LeftOut, ...] = ()
    trouble: str | None = None
    """Why something, or all, was not committed."""


@dataclass(frozen=True)
class IndexEntry:
    """One path in an index, against the commit."""

    old_mode: str
    mode: str
    old: str
    new: str

    @property
    def former(self) -> tuple[str, str]:
        """Mode and blob in the commit."""
        return self.old_mode, self.old

    @property
    def now(self) -> tuple[str, str]:
        """Mode and blob in the index."""
        return self.mode, self.new


Entries = Mapping[bytes, IndexEntry]


def commit_work(
    tree: Tree, status: Status, taken: list[Change], commit_filter: CommitFilter, policy: RolePolicy, words: CommitText
) -> CommitOutcome:
    """Commit these changes, on a branch of the agent's own; what is staged, and stands nowhere else, first."""
    if why := tree.obstacle(status):
        return CommitOutcome(trouble=why)
    new = sum(change.unstaged == "?" for change in taken)
    if new > policy.new_files_limit:
        limit = f"the limit is {policy.new_files_limit:,}"
        return CommitOutcome(trouble=f"{new:,} new files wait, {limit}: is something missing in .gitignore?")
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
        return replace(outcome, trouble=f"nothing can be put together for a commit: {error}")


# ── the branch ───────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _on_own_branch(tree: Tree, status: Status, policy: RolePolicy, agent: str) -> Iterator[None]:
    """Not on the default branch; back there if nothing was committed. No file of the tree changes by this."""
    before = status.branch
    if before is None or not tree.is_protected(before, policy):
        yield
        return
    branch, exists = _own_branch(tree, policy.branch.replace("{agent}", agent))
    how = "-C" if exists else "-c"
    try:
        tree.git.run("switch", "--quiet", "--no-track", how, branch, seconds=policy.hook_seconds)
        yield
    finally:
        here = tree.git.ask("symbolic-ref", "--quiet", "--short", "HEAD")
        if here == branch and tree.head() == status.head:
            tree.git.run("symbolic-ref", "-m", "torch: nothing was committed", "HEAD", f"refs/heads/{before}")
            if not exists and status.head:
                tree.git.run("branch", "--quiet", "-D", branch)


def _own_branch(tree: Tree, wanted: str) -> tuple[str, bool]:
    """The first of ``wanted``, ``wanted-2``, … that would lose nothing by standing here; and whether it exists."""
    used = (tree.git.ask("worktree", "list", "--porcelain") or "").splitlines()
    for number in itertools.count(1):
        branch = wanted if number == 1 else f"{wanted}-{number}"
        if not tree.git.agrees("show-ref", "--verify", "--quiet", f"refs/heads/{branch}"):
            return branch, False
        elsewhere = f"branch refs/heads/{branch}" in used
        if not elsewhere and tree.git.agrees("merge-base", "--is-ancestor", f"refs/heads/{branch}", "HEAD"):
            return branch, True
    raise AssertionError


# ── the commit ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Commit:
    """One commit in the making."""

    def __init__(self, tree: Tree, commit_filter: CommitFilter, policy: RolePolicy, words: CommitText) -> None:
        self._tree = tree
        self._filter = commit_filter
        self._policy = policy
        self._text = words
        self._base = tree.head() or tree.empty_tree()

    def of_staged(self) -> CommitOutcome:
        """Commit what is staged, as it is."""
        with self._own_index() as index:
            entries, left = self._judged(index)
            if entries:
                self._commit(index, entries, "what is staged")
                self._follow(index, entries)
            return CommitOutcome(commits=int(bool(entries)), left_out=tuple(left))

    def of_all(self, changes: Sequence[Change]) -> CommitOutcome:
        """Commit what is staged and what is not."""
        with self._own_index() as index:
            self._take(index, changes)
            entries, left = self._judged(index)
            if not entries:
                return CommitOutcome(left_out=tuple(left))
            before = self._entries(self._tree.index, self._base)
            self._stage({path: entry.now for path, entry in entries.items()})
            try:
                self._commit(index, entries, "")
            except GitRefused:
                self._unstage(entries, before, changes)
                raise
            self._follow(index, entries)
            return CommitOutcome(commits=1, left_out=tuple(left))

    def _take(self, index: Path, changes: Sequence[Change]) -> None:
        """Have the index hold what the files hold."""
        git = Git(self._tree.top, index)
        gone = [change.path for change in changes if change.staged == "D" or not self._tree.has(change)]
        there = [change.path for change in changes if change.path not in set(gone)]
        nothing = "0", "0" * len(self._base)
        git.run("update-index", "-z", "--index-info", stdin=_index_info(dict.fromkeys(gone, nothing)))
        git.run("update-index", "-z", "--add", "--remove", "--stdin", stdin=b"".join(path + b"\0" for path in there))

    @contextmanager
    def _own_index(self) -> Iterator[Path]:
        """A copy of what is staged, to be changed at will."""
        with tempfile.TemporaryDirectory(prefix="torch-index-") as folder:
            index = Path(folder) / "index"
            if self._tree.index.exists():
                # With its time, by which git tells files that were written in the same moment.
                shutil.copy2(self._tree.index, index)
            yield index

    def _entries(self, index: Path, base: str) -> dict[bytes, IndexEntry]:
        """What in this index is not as that commit has it."""
        words = ("--cached", "--raw", "-z", "--no-renames", "--ita-invisible-in-index", base)
        fields = Git(self._tree.top, index).run("diff-index", *words)
        parts = iter(fields.split(b"\0")[:-1])
        found = {}
        for meta, path in zip(parts, parts, strict=True):
            old_mode, mode, old, new, _ = meta.decode().removeprefix(":").split(" ")
            found[path] = IndexEntry(old_mode, mode, old, new)
        return found

    def _judged(self, index: Path) -> tuple[dict[bytes, IndexEntry], list[LeftOut]]:
        """What of the index is committed; all else is taken out of it."""
        entries, left = self._entries(index, self._base), list[LeftOut]()
        for path, why in list(self._refused(entries)):
            left.append(excluded(path, why))
            former = entries.pop(path).former
            Git(self._tree.top, index).run("update-index", "-z", "--index-info", stdin=_index_info({path: former}))
        return entries, left

    def _refused(self, entries: Entries) -> Iterator[tuple[bytes, str]]:
        """Those of the entries that must not be committed. It is the blobs that are judged: files may change."""
        files = {path: entry for path, entry in entries.items() if entry.mode not in (_ABSENT, _SUBMODULE)}
        asked = "".join(f"{entry.new}\n" for entry in files.values()).encode()
        sizes = self._tree.git.run("cat-file", "--batch-check=%(objectsize)", stdin=asked).splitlines()
        for (path, entry), size in zip(files.items(), sizes, strict=True):
            why = self._filter.of_name(path) or self._filter.of_size(int(size)) or self._of_text(entry)
            if why:
                yield path, why

    def _of_text(self, entry: IndexEntry) -> str | None:
        old = entry.old if entry.old_mode not in (_ABSENT, _SUBMODULE) else None
        return self._filter.of_text(blob(self._tree, entry.new), lambda: blob(self._tree, old))

    def _commit(self, index: Path, entries: Entries, part: str) -> None:
        git = Git(self._tree.top, index)
        stat = ("--no-ext-diff", "--no-textconv", "--no-color", "--stat=100", f"--stat-count={_LISTED}")
        listed = git.run("diff", "--cached", *stat).decode(errors="replace")
        title = self._text.title or _title_of(entries)
        subject = f"Progress: {title}" + (f" ({part})" if part else "")
        message = f"{subject}\n\n{listed}\n{self._text.ending}"
        self._require_base(self._tree.head())
        git.run(
            "commit",
            "--quiet",
            "--cleanup=verbatim",
            "--file=-",
            stdin=message.encode(errors="replace"),
            seconds=self._policy.hook_seconds,
            settings=author_settings(self._tree, self._text.agent),
        )
        self._yield_to_others()

    def _yield_to_others(self) -> None:
        """Take our commit back if another commit came a moment earlier: ours would undo it."""
        git, since = self._tree.git, "HEAD" if self._base == self._tree.empty_tree() else f"{self._base}..HEAD"
        made = git.run("rev-list", "--first-parent", since).decode().split()
        if len(made) == 1 or self._text.ending in git.run("log", "-1", "--format=%B", made[-1]).decode(
            errors="replace"
        ):
            return  # on top of it is at most what a hook has made
        ours, theirs = git.run("rev-parse", "HEAD", "HEAD^").decode().split()
        git.run("update-ref", "-m", "torch: taken back", "HEAD", theirs, ours)
        self._require_base(theirs)

    def _require_base(self, head: str | None) -> None:
        if (head or self._tree.empty_tree()) != self._base:
            where = self._tree.top
            raise GitRefused(f"somebody else has committed in {where} meanwhile; the next look goes on from there")

    # ── the tree's own index ─────────────────────────────────────────────────────────────────────────────────────────

    def _stage(self, wanted: Mapping[bytes, tuple[str, str]]) -> None:
        self._tree.git.run("update-index", "-z", "--index-info", stdin=_index_info(wanted))
        # It ends with an error where something is changed yet, which is no news.
        self._tree.git.ask("update-index", "-q", "--refresh")

    def _unstage(self, entries: Entries, before: Entries, changes: Iterable[Change]) -> None:
        """Stage again what was staged before, and leave alone what was staged or committed meanwhile."""
        if (self._tree.head() or self._tree.empty_tree()) != self._base:
            return
        current = self._entries(self._tree.index, self._base)
        ours = [path for path, entry in entries.items() if path in current and current[path].now == entry.now]
        self._stage({path: before[path].now if path in before else entries[path].former for path in ours})
        announced = [change.path for change in changes if (change.staged, change.unstaged) == (".", "A")]
        if announced:
            words = ("--literal-pathspecs", "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
            self._tree.git.run(*words, stdin=b"\0".join(announced))

    def _follow(self, index: Path, entries: Entries) -> None:
        """A hook may have changed what was committed: the tree's index learns that, too."""
        made = self._entries(index, self._base)
        differing = {path: entry for path, entry in made.items() if entries.get(path) != entry}
        if not differing:
            return
        current = self._entries(self._tree.index, "HEAD")
        ours = {path: entries[path].now if path in entries else entry.former for path, entry in differing.items()}
        self._stage(
            {path: made[path].now for path, was in ours.items() if path in current and current[path].now == was}
        )


def author_settings(tree: Tree, agent: str) -> tuple[str, ...]:
    """The agent as author, as far as the tree's owner has said nothing."""
    names = {"user.name": agent, "user.email": f"{agent}@torch.invalid"}
    return tuple(f"{name}={value}" for name, value in names.items() if not tree.git.ask("config", "--get", name))


def _index_info(entries: Mapping[bytes, tuple[str, str]]) -> bytes:
    """Index entries as ``update-index --index-info`` reads them; what goes comes first, to make room."""
    goes_first = sorted(entries.items(), key=lambda item: item[1][0].strip("0") != "")
    return b"".join(f"{mode} {name}\t".encode() + path + b"\0" for path, (mode, name) in goes_first)


def _title_of(entries: Entries) -> str:
    """The changes in a few words."""
    first = excluded(min(entries), "").path
    first = first if len(first) <= 50 else f"{first[:49]}…"
    return first if len(entries) == 1 else f"{first} and {len(entries) - 1} more"
