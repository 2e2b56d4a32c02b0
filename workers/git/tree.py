"""A git tree as it is: its branch, its commit, its changes, and what forbids to commit; all by running git.

An agent may write its repository's configuration, so while Torch looks, git runs no program that is named there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from torch_tasks.errors import GitRefused
from torch_tasks.model.task import DiffStat
from torch_tasks.workers.git.box import SETTINGS as SETTINGS_IN_BOX
from torch_tasks.workers.git.box import GitBox, Launch
from torch_tasks.workers.git.environment import git_environment
from torch_tasks.workers.git.policy import TASK_BRANCH, RolePolicy

#: How long git may take where no hook of the user's runs.
QUICK = 30.0
#: How much of the end of git's and its hooks' output goes into an error.
_TAIL = 1500
#: Of so many new files of at most this size the lines are counted.
_COUNTED_FILES, _COUNTED_BYTES = 500, 1_000_000
# Git takes no lock that would disturb an agent that commits at this moment.
_ALWAYS = ("--no-optional-locks",)
#: Git tidies up nothing in passing, and asks no monitor what has changed.
_SETTINGS = {"gc.auto": "0", "maintenance.auto": "false", "core.fsmonitor": "false"}
#: While Torch looks, git runs neither hooks nor helpers, and fetches nothing.
_LOOKING = {
    "core.hooksPath": "/dev/null",
    "core.pager": "cat",
    "core.askPass": "true",
    "core.sshCommand": "false",
    "credential.helper": "",
    "diff.external": "",
    "log.showSignature": "false",
}
_NO_PROTOCOL = {"GIT_ALLOW_PROTOCOL": "none"}
#: The commands that have a filter translate files; and what turns one off.
_TRANSLATING = ("status", "diff", "worktree")
_FILTER_OFF = {"clean": "", "smudge": "", "process": "", "required": "false"}
_UNATTENDED = {"GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true", "GIT_PAGER": "cat", "LC_ALL": "C"}
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
    """Git in one folder, without prompts and with a time limit; with ``index`` instead of the tree's own, if given.

    What it changes there it changes in the ``box``, if there is one.
    """

    def __init__(self, folder: Path, index: Path | None = None, box: GitBox | None = None) -> None:
        self._folder = folder
        self._variables = {"GIT_INDEX_FILE": str(index)} if index else {}
        self._box = box

    def with_index(self, index: Path) -> Git:
        """The same with this index."""
        return Git(self._folder, index, self._box)

    def run(self, *words: str, stdin: bytes = b"", most: int = -1) -> bytes:
        """Git's output, for a look: no hook, monitor, filter, or other program of the repository's runs.

        Not more than the first ``most`` bytes, if that is given.

        :class:`GitRefused` with git's words if it fails or takes too long.
        """
        filters = self._filters_off() if words[0] in _TRANSLATING else {}
        environment = self._environment(_SETTINGS | _LOOKING | filters) | _NO_PROTOCOL
        return self._run(words, stdin, QUICK, environment, most=most)

    def change(
        self,
        *words: str,
        stdin: bytes = b"",
        seconds: float = QUICK,
        settings: Mapping[str, str] | None = None,
        adds: Path | None = None,
    ) -> bytes:
        """The same for a change, which the repository's hooks and filters have a say in. ``adds`` is a tree to be made.

        When the time is over, everything that git started is killed, too.
        """
        boxed = SETTINGS_IN_BOX | {f"{one}.required": "true" for one in self._filters()} if self._box else {}
        environment = self._environment(_SETTINGS | boxed | dict(settings or {}))
        return self._run(words, stdin, seconds, environment, self._box, adds)

    def _filters_off(self) -> dict[str, str]:
        """Settings that turn off each filter of the repository and of its submodules."""
        plain = self._environment(_SETTINGS | _LOOKING)
        off = {f"{one}.{key}": value for one in self._filters() for key, value in _FILTER_OFF.items()}
        with contextlib.suppress(GitRefused):
            for entry in self._run(("ls-files", "-z", "--stage"), b"", QUICK, plain).split(b"\0"):
                inside = self._folder / os.fsdecode(entry.partition(b"\t")[2])
                if entry.startswith(b"160000 ") and (inside / ".git").exists():
                    off |= Git(inside)._filters_off()
        return off

    def _filters(self) -> set[str]:
        """The filters that git's configuration names here, as ``filter.NAME``."""
        plain = self._environment(_SETTINGS | _LOOKING)
        try:
            names = self._run(("config", "-z", "--name-only", "--get-regexp", "^filter\\."), b"", QUICK, plain)
        except GitRefused:  # there is none
            return set()
        return {os.fsdecode(name).rpartition(".")[0] for name in names.split(b"\0")[:-1]}

    def _run(
        self,
        words: Sequence[str],
        stdin: bytes,
        seconds: float,
        environment: Mapping[str, str],
        box: GitBox | None = None,
        adds: Path | None = None,
        most: int = -1,
    ) -> bytes:
        argv = ["git", *_ALWAYS, *words]
        try:
            plain: AbstractContextManager[Launch] = contextlib.nullcontext((argv, []))
            with box.around(self._folder, adds, argv) if box else plain as (command, files):
                code, answer, errors = self._result(command, stdin, seconds, environment, files, most)
        except OSError as error:
            raise GitRefused(f"git cannot run in {self._folder}: {error.strerror or error}") from None
        if code == 0:
            return answer
        said = (answer[-_TAIL:] + errors[-_TAIL:]).decode(errors="replace").strip()
        how = f"took longer than {seconds:g} s and was killed" if code is None else f"ended with exit code {code}"
        raise GitRefused(f"git {words[0]} in {self._folder} {how}" + (f": {said}" if said else ""))

    def _result(
        self,
        argv: Sequence[str],
        stdin: bytes,
        seconds: float,
        environment: Mapping[str, str],
        files: Sequence[int],
        most: int,
    ) -> tuple[int | None, bytes, bytes]:
        """The exit code, None if the time was over, then the output and the errors. It takes these open files along.

        Files instead of pipes: a hook's background process would keep a pipe open. A session of its own: a signal that
        ends this worker must not end a commit half way.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                argv,
                cwd=self._folder,
                env=environment,
                stdin=given,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                pass_fds=files,
            )
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            errors.seek(0)
            return code, output.read(most), errors.read()

    def ask(self, *words: str) -> str | None:
        """Git's output without its line's end; None if it fails."""
        try:
            return os.fsdecode(self.run(*words)).removesuffix("\n")
        except GitRefused:
            return None

    def succeeds(self, *words: str) -> bool:
        return self.ask(*words) is not None

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Git's environment, with settings beside those that it holds already; submodules inherit them."""
        ours = git_environment() | _UNATTENDED
        first = int(ours.get("GIT_CONFIG_COUNT", "0"))
        for number, (key, value) in enumerate(settings.items(), first):
            ours |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return ours | {"GIT_CONFIG_COUNT": str(first + len(settings))} | self._variables


@dataclass(frozen=True)
class Change:
    """One path that differs from the commit."""

    path: bytes
    staged: str
    """Git's letter: ``A``, ``M``, ``D``, ``T``, or ``.`` for no change."""
    unstaged: str
    """The same, or ``?`` for a file that git does not know."""
    committed: str | None = None
    """The blob in the commit, if it has one there."""
    submodule: bool = False
    moved: bool = False
    """A submodule in which another commit is checked out; Torch ignores what else changed in it."""

    @property
    def name(self) -> str:
        return readable_name(self.path)

    @property
    def mixed(self) -> bool:
        """The file has changed again since it was staged, so that only the index holds what was staged."""
        return self.staged in "AMT" and self.unstaged in "MTD"


@dataclass(frozen=True)
class Status:
    """A tree at one moment."""

    head: str | None
    """The commit; None before the first one."""
    branch: str | None
    """None if no branch is checked out."""
    changes: tuple[Change, ...] = ()
    unmerged: bool = False


class Tree:
    """A working tree: the repository's own or an added one."""

    def __init__(self, top: Path, git_dir: Path, repository: Path, box: GitBox | None) -> None:
        self.top = top
        self.git_dir = git_dir
        self.repository = repository
        """The folder that all trees of the repository share."""
        self.git = Git(top, box=box)

    @classmethod
    def around(cls, folder: Path, box: GitBox | None = None) -> Tree | None:
        """The tree that the folder lies in; None if it lies in none, :class:`GitRefused` if git cannot say.

        It is changed in the ``box``, if there is one.
        """
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
        return cls(_path(top), git_dir, (folder / common).resolve(), box)

    @property
    def index(self) -> Path:
        return self.git_dir / "index"

    def status(self) -> Status:
        shown = ("--branch", "--untracked-files=all", "--no-renames", "--ignore-submodules=none")
        return _parsed(self.git.run("status", "--porcelain=v2", "-z", *shown).split(b"\0"))

    def operation_under_way(self, status: Status) -> str | None:
        """The git operation that is under way, during which Torch must not commit or change the branch."""
        for name, what in _UNDER_WAY.items():
            if (self.git_dir / name).exists():
                return f"{what} is under way"
        if status.unmerged:
            return "a conflict is not resolved"
        if (self.git_dir / "index.lock").exists():
            return f"another git is running, or died: {self.git_dir / 'index.lock'} exists"
        return None

    def obstacle(self, status: Status) -> str | None:
        """Why Torch cannot commit now, or None."""
        if what := self.operation_under_way(status):
            return what
        return None if status.branch else "no branch is checked out (detached HEAD)"

    def head(self) -> str | None:
        return self.git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")

    def base(self) -> str:
        """The commit that is checked out; before the first one, the tree without a file."""
        return self.head() or self.empty_tree()

    def empty_tree(self) -> str:
        return self.git.run("hash-object", "-t", "tree", "--stdin").decode().strip()

    def changes_since(self, base: str) -> DiffStat:
        """How the files differ from this commit, new ones included; of a file that is no text, only that it does."""
        files = added = removed = 0
        for line in self.git.run("diff", "--numstat", "--no-renames", "-z", base).split(b"\0"):
            if line:
                more, less, _ = line.split(b"\t", 2)
                files, added, removed = files + 1, added + _number(more), removed + _number(less)
        unknown = [change for change in self.status().changes if change.unstaged == "?" and self.has(change)]
        lines = sum(self._lines(change) for change in unknown[:_COUNTED_FILES])
        return DiffStat(files=files + len(unknown), added=added + lines, removed=removed)

    def _lines(self, change: Change) -> int:
        found = self.file_status(change)
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size > _COUNTED_BYTES:
            return 0
        text = (self.top / os.fsdecode(change.path)).read_bytes()
        return 0 if b"\0" in text else len(text.splitlines())

    def is_protected(self, branch: str, policy: RolePolicy) -> bool:
        """Torch never commits on the default branch, nor on one that the policy protects."""
        if branch in self._defaults(policy):
            return True
        return not _is_made_by_torch(branch, policy) and any(fnmatchcase(branch, glob) for glob in policy.protected)

    def _defaults(self, policy: RolePolicy) -> set[str]:
        """Every branch that may be the default one; the only branch is, if nothing else names a default."""
        remote = (self.git.ask("for-each-ref", "--format=%(symref)", "refs/remotes") or "").splitlines()
        tracked = {ref.split("/", 3)[3] for ref in remote if ref.count("/") >= 3}
        named = {"main", "master", self.git.ask("config", "--get", "init.defaultBranch") or "main"}
        local = (self.git.ask("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads") or "").splitlines()
        others = [branch for branch in local if not _is_made_by_torch(branch, policy)]
        alone = set(others) if len(others) <= 1 and not tracked and not named & set(local) else set()
        return tracked | named | alone

    def last_tag(self) -> str | None:
        words = ("for-each-ref", "--count=1", "--sort=-creatordate", "--merged=HEAD", "--format=%(refname:lstrip=2)")
        return self.git.ask(*words, "refs/tags/stable-*") or None

    def last_commit(self) -> tuple[str, datetime, str] | None:
        """The short id, time and subject of the commit that is checked out."""
        line = self.git.ask("log", "-1", "--no-show-signature", "--format=%h%x00%ct%x00%s")
        if not line:
            return None
        short, made, subject = line.split("\0", 2)
        return short, datetime.fromtimestamp(int(made), UTC), readable_name(os.fsencode(subject))

    def oldest(self, changes: Iterable[Change]) -> datetime | None:
        """When the oldest change was made by its file's time, which a deletion lacks; not before the commit."""
        committed = self.last_commit()
        earliest = committed[1].timestamp() if committed else 0.0
        times = [found.st_mtime for found in map(self.file_status, changes) if found]
        return datetime.fromtimestamp(min(max(min(times), earliest), time.time()), UTC) if times else None

    def has(self, change: Change) -> bool:
        """Whether there is something at the change's path that git can commit: no mere folder."""
        found = self.file_status(change)
        return found is not None and (change.submodule or not stat.S_ISDIR(found.st_mode))

    def file_status(self, change: Change) -> os.stat_result | None:
        """What lies at the change's path, a link itself and not its target; None if nothing does."""
        try:
            return (self.top / os.fsdecode(change.path)).lstat()
        except OSError:
            return None


def readable_name(name: bytes) -> str:
    """A file's name, which may be any bytes, as one printable line."""
    text = name.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _is_made_by_torch(branch: str, policy: RolePolicy) -> bool:
    own = policy.branch.replace("{agent}", "*"), TASK_BRANCH.replace("{task}", "*")
    return any(fnmatchcase(branch, glob) for glob in own)


def _number(count: bytes) -> int:
    return int(count) if count.isdigit() else 0  # git counts no lines in what is no text


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
    staged, unstaged = map(chr, xy)
    known = committed.decode() if committed.strip(b"0") else None
    moved = sub[1:2] == b"C" or staged != "."
    return Change(path, staged, unstaged, committed=known, submodule=sub.startswith(b"S"), moved=moved)


def branch_or_commit(workdir: Path) -> str | None:
    """The branch or commit that is checked out; None if this is no git tree."""
    git = Git(workdir)
    return git.ask("symbolic-ref", "--quiet", "--short", "HEAD") or git.ask("rev-parse", "--short", "HEAD")


def uncommitted_changes(workdir: Path, limit: int) -> str | None:
    """The state of the changed files, then the diff, at most ``limit`` characters; None if this is no git tree."""
    git = Git(workdir)
    status = git.ask("status", "--short", "--branch")
    if status is None:
        return None
    diff = git.ask("diff", "--no-ext-diff", "--no-textconv", "HEAD") or ""
    text = f"{status}\n\n{diff}".strip()[:limit]
    return text.encode(errors="surrogateescape").decode(errors="replace")
