"""One git tree as it is: git run in its folder, its branch, its commit, what changed, and what forbids to touch it."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from torch_tasks.errors import GitRefused
from torch_tasks.workers.git.policy import TASK_BRANCH, RolePolicy

#: How long git may take where no hook of the user's runs.
QUICK = 30.0
#: As much of what git and its hooks say as is worth telling.
_TAIL = 1500
#: What another git left in the environment speaks of another tree than ours.
_FOREIGN = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_LITERAL_PATHSPECS",
)
# Nothing is tidied up in passing, and looking disturbs no agent that commits at this moment.
_ALWAYS = ("--no-optional-locks", "-c", "gc.auto=0", "-c", "maintenance.auto=false")
_NOBODY_THERE = {"GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true", "GIT_PAGER": "cat", "LC_ALL": "C"}
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "sequencer": "a cherry-pick or revert",
    "BISECT_LOG": "a bisection",
}


class Git:
    """Git in one folder; it asks nothing and ends in time. With this index, if one is named, instead of the tree's."""

    def __init__(self, folder: Path, index: Path | None = None) -> None:
        self._folder = folder
        self._variables = {"GIT_INDEX_FILE": str(index)} if index else {}

    def run(
        self,
        *words: str,
        stdin: bytes = b"",
        seconds: float = QUICK,
        settings: Sequence[str] = (),
    ) -> bytes:
        """What git answers; :class:`GitRefused`, with its words, if it fails or takes longer.

        Everything it started ends with it when the time is over.
        """
        argv = ["git", *_ALWAYS, *(word for one in settings for word in ("-c", one)), *words]
        try:
            code, answer, wrong = self._end(argv, stdin, seconds)
        except OSError as error:
            raise GitRefused(f"git cannot run in {self._folder}: {error.strerror or error}") from None
        if code == 0:
            return answer
        said = (answer[-_TAIL:] + wrong[-_TAIL:]).decode(errors="replace").strip()
        how = f"took longer than {seconds:g} s and was ended" if code is None else f"ended with exit code {code}"
        raise GitRefused(f"git {words[0]} in {self._folder} {how}" + (f": {said}" if said else ""))

    def _end(self, argv: Sequence[str], stdin: bytes, seconds: float) -> tuple[int | None, bytes, bytes]:
        """How the command ends, and what it says.

        Files, not pipes: what a hook leaves in the background must not hold us up. A session of its own: who ends
        this worker does not end a commit half way.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrong:
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                argv,
                cwd=self._folder,
                env=self._environment(),
                stdin=given,
                stdout=said,
                stderr=wrong,
                start_new_session=True,
            )
            code = _ended(process, seconds)
            said.seek(0)
            wrong.seek(0)
            return code, said.read(), wrong.read()

    def ask(self, *words: str) -> str | None:
        """What git answers, without its line's end; nothing if it fails."""
        try:
            return os.fsdecode(self.run(*words)).removesuffix("\n")
        except GitRefused:
            return None

    def agrees(self, *words: str) -> bool:
        """Git answers with success."""
        return self.ask(*words) is not None

    def _environment(self) -> Mapping[str, str]:
        ours = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        return {**ours, **_NOBODY_THERE, **self._variables}


def _ended(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code, or nothing if it was ended because its time was over."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


@dataclass(frozen=True)
class Change:
    """One path that is not as the commit has it."""

    path: bytes
    staged: str
    """As git says it: ``A``, ``M``, ``D``, ``T``, or ``.`` for nothing."""
    unstaged: str
    """The same, or ``?`` for a file that git does not know."""
    committed: str | None = None
    """The blob in the commit, if there is one."""
    submodule: bool = False
    moved: bool = False
    """Of a submodule: another commit is checked out in it. What else changed there is its own affair."""

    @property
    def name(self) -> str:
        """The path as a person may read it."""
        return readable_name(self.path)

    @property
    def mixed(self) -> bool:
        """What is staged stands nowhere else: the file has gone on since."""
        return self.staged in "AMT" and self.unstaged in "MTD"


@dataclass(frozen=True)
class Status:
    """What git says of a tree at one moment."""

    head: str | None
    """The commit; nothing before the first one."""
    branch: str | None
    """Nothing: no branch is checked out."""
    changes: tuple[Change, ...] = ()
    unmerged: bool = False


class Tree:
    """A working tree: the repository's own, or one that was added to it."""

    def __init__(self, top: Path, git_dir: Path, repository: Path) -> None:
        self.top = top
        self.git_dir = git_dir
        self.repository = repository
        """What all trees of the repository share."""
        self.git = Git(top)

    @classmethod
    def around(cls, folder: Path) -> Tree | None:
        """The tree that the folder lies in; nothing if it lies in none, :class:`GitRefused` if git cannot say."""
        if not folder.is_dir():
            return None
        git = Git(folder)
        try:
            top = git.run("rev-parse", "--show-toplevel")
        except GitRefused as refused:
            if "not a git repository" in str(refused) or "must be run in a work tree" in str(refused):
                return None
            raise
        git_dir = _path(git.run("rev-parse", "--absolute-git-dir"))
        common = _path(git.run("rev-parse", "--git-common-dir"))
        return cls(_path(top), git_dir, (folder / common).resolve())

    @property
    def index(self) -> Path:
        """Where git keeps what is staged."""
        return self.git_dir / "index"

    def status(self) -> Status:
        """What changed, to the last file."""
        lines = self.git.run(
            "status",
            "--porcelain=v2",
            "-z",
            "--branch",
            "--untracked-files=all",
            "--no-renames",
            "--ignore-submodules=none",
        )
        return _parsed(lines.split(b"\0"))

    def under_way(self, status: Status) -> str | None:
        """The operation that is under way, so that nothing must be committed now."""
        for name, what in _UNDER_WAY.items():
            if (self.git_dir / name).exists():
                return f"{what} is under way"
        if status.unmerged:
            return "a conflict is not resolved"
        if (self.git_dir / "index.lock").exists():
            return f"another git is at work, or died: {self.git_dir / 'index.lock'} exists"
        return None

    def obstacle(self, status: Status) -> str | None:
        """Why nothing can be committed now, if so."""
        if what := self.under_way(status):
            return what
        return None if status.branch else "no branch is checked out (detached HEAD)"

    def head(self) -> str | None:
        """The commit that is checked out."""
        return self.git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")

    def empty_tree(self) -> str:
        """The tree without a file, which is what there is before the first commit."""
        return self.git.run("hash-object", "-t", "tree", "--stdin").decode().strip()

    def is_protected(self, branch: str, policy: RolePolicy) -> bool:
        """It is the default branch, or one that the policy protects: nothing is committed there."""
        if branch in self._defaults(policy):
            return True
        return not _is_made_by_torch(branch, policy) and any(fnmatchcase(branch, glob) for glob in policy.protected)

    def _defaults(self, policy: RolePolicy) -> set[str]:
        """Every name that may be the default branch's; the only branch is one if nothing else names it."""
        remote = (self.git.ask("for-each-ref", "--format=%(symref)", "refs/remotes") or "").splitlines()
        tracked = {ref.split("/", 3)[3] for ref in remote if ref.count("/") >= 3}
        named = {"main", "master", self.git.ask("config", "--get", "init.defaultBranch") or "main"}
        local = (self.git.ask("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads") or "").splitlines()
        others = [branch for branch in local if not _is_made_by_torch(branch, policy)]
        alone = set(others) if len(others) <= 1 and not tracked and not named & set(local) else set()
        return tracked | named | alone

    def last_tag(self) -> str | None:
        """The latest tag of a verified end in what is checked out."""
        words = ("for-each-ref", "--count=1", "--sort=-creatordate", "--merged=HEAD", "--format=%(refname:lstrip=2)")
        return self.git.ask(*words, "refs/tags/stable-*") or None

    def last_commit(self) -> tuple[str, datetime, str] | None:
        """The commit that is checked out: its short id, when it was made, its subject."""
        line = self.git.ask("log", "-1", "--no-show-signature", "--format=%h%x00%ct%x00%s")
        if not line:
            return None
        short, made, subject = line.split("\0", 2)
        return short, datetime.fromtimestamp(int(made), UTC), readable_name(os.fsencode(subject))

    def oldest(self, changes: Iterable[Change]) -> datetime | None:
        """When the oldest of these changes was made, by this machine's clock and files; not before the commit.

        What was deleted left no time behind.
        """
        committed = self.last_commit()
        earliest = committed[1].timestamp() if committed else 0.0
        times = [moment for change in changes if (moment := self._changed_at(change)) is not None]
        return datetime.fromtimestamp(min(max(min(times), earliest), time.time()), UTC) if times else None

    def _changed_at(self, change: Change) -> float | None:
        try:
            return (self.top / os.fsdecode(change.path)).lstat().st_mtime
        except OSError:
            return None

    def has(self, change: Change) -> bool:
        """There is something at the change's path that git can keep: no mere folder."""
        try:
            found = (self.top / os.fsdecode(change.path)).lstat()
        except OSError:
            return False
        return change.submodule or not stat.S_ISDIR(found.st_mode)


def readable_name(name: bytes) -> str:
    """A name of a file, which may be any bytes, as one line of text."""
    text = name.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _is_made_by_torch(branch: str, policy: RolePolicy) -> bool:
    """Torch made it, for an agent or a task."""
    own = policy.branch.replace("{agent}", "*"), TASK_BRANCH.replace("{task}", "*")
    return any(fnmatchcase(branch, glob) for glob in own)


def _path(line: bytes) -> Path:
    return Path(os.fsdecode(line).removesuffix("\n"))


def _parsed(entries: Sequence[bytes]) -> Status:
    head: str | None = None
    branch: str | None = None
    changes: list[Change] = []
    unmerged = False
    for entry in entries:
        kind, _, rest = entry.partition(b" ")
        if kind == b"#":
            name, _, value = rest.partition(b" ")
            if name == b"branch.oid" and value != b"(initial)":
                head = value.decode()
            elif name == b"branch.head" and value != b"(detached)":
                branch = os.fsdecode(value)
        elif kind == b"1":
            changes.append(_ordinary(rest))
        elif kind == b"?":
            changes.append(Change(rest, ".", "?"))
        elif kind == b"u":
            unmerged = True
    return Status(head, branch, tuple(changes), unmerged)


def _ordinary(rest: bytes) -> Change:
    xy, sub, _, _, _, committed, _, path = rest.split(b" ", 7)
    known = committed.decode() if committed.strip(b"0") else None
    return Change(
        path,
        xy.decode()[0],
        xy.decode()[1],
        committed=known,
        submodule=sub.startswith(b"S"),
        moved=sub[1:2] == b"C" or xy[:1] != b".",
    )


def branch_or_commit(workdir: Path) -> str | None:
    """The branch that is checked out, or the commit; nothing if this is no git tree."""
    git = Git(workdir)
    return git.ask("symbolic-ref", "--quiet", "--short", "HEAD") or git.ask("rev-parse", "--short", "HEAD")


def uncommitted_changes(workdir: Path, limit: int) -> str | None:
    """What is not committed: the state of the files, then the diff, at most so many characters of it."""
    git = Git(workdir)
    status = git.ask("status", "--short", "--branch")
    if status is None:
        return None
    text = f"{status}\n\n{git.ask('diff', 'HEAD') or ''}".strip()[:limit]
    return text.encode(errors="surrogateescape").decode(errors="replace")
