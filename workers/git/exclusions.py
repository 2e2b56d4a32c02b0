"""What Torch never commits: secrets, huge files, git trees inside the tree."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from torch_tasks.errors import GitRefused
from torch_tasks.store.git_reports import LeftOut
from torch_tasks.workers.git.policy import RolePolicy
from torch_tasks.workers.git.tree import Change, Tree

_SECRET_FILES = (
    ".env",
    ".env.*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".netrc",
    ".pgpass",
    ".pypirc",
    ".git-credentials",
)
_HARMLESS_FILES = (".env.example", ".env.sample", ".env.template", ".env.dist", "id_*.pub")
_SECRET_TEXTS = {
    "a private key": rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "an AWS key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{60,}",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "an API key": rb"\bsk-[A-Za-z0-9_-]{32,}",
    "a Google API key": rb"\bAIza[0-9A-Za-z_-]{35}",
    "an npm token": rb"\bnpm_[A-Za-z0-9]{36}\b",
    "a PyPI token": rb"\bpypi-AgE[A-Za-z0-9_-]{50,}",
    "a Stripe key": rb"\b[rs]k_live_[0-9A-Za-z]{20,}",
}


class CommitFilter:
    """Decides what Torch leaves out of a tree's commits, and why."""

    def __init__(self, policy: RolePolicy) -> None:
        self._limit = policy.file_limit_bytes
        self._names = tuple(glob.lower() for glob in (*_SECRET_FILES, *policy.secret_files))
        own = {f"a text that git.toml names ({text})": text.encode() for text in policy.secret_texts}
        self._texts = {what: re.compile(text) for what, text in (_SECRET_TEXTS | own).items()}
        self._known: dict[tuple[bytes, ...], str | None] = {}

    def sort(self, tree: Tree, changes: Iterable[Change]) -> tuple[list[Change], list[LeftOut]]:
        """The changes that a commit may take, and those that it leaves out."""
        taken, left, known = [], [], dict[tuple[bytes, ...], str | None]()
        for change in changes:
            if reason := self._reason_by_change(tree, change, known):
                left.append(LeftOut(path=change.name, why=reason))
            else:
                taken.append(change)
        self._known = known
        return taken, left

    def reason_by_name(self, path: bytes) -> str | None:
        name = os.fsdecode(path).rsplit("/", 1)[-1].lower()
        if any(fnmatchcase(name, glob) for glob in _HARMLESS_FILES):
            return None
        return "its name is that of a secret" if any(fnmatchcase(name, glob) for glob in self._names) else None

    def reason_by_size(self, size: int) -> str | None:
        return f"it has {size:,} bytes, the limit is {self._limit:,}" if size > self._limit else None

    def reason_by_text(self, text: bytes, before: Callable[[], bytes]) -> str | None:
        """Why a file with this text is left out, or None. A secret that the file held ``before`` is no reason."""
        for what, expression in self._texts.items():
            found = {match[0] for match in expression.finditer(text)}
            if found and found - {match[0] for match in expression.finditer(before())}:
                return f"it holds {what}"
        return None

    def _reason_by_change(self, tree: Tree, change: Change, known: dict[tuple[bytes, ...], str | None]) -> str | None:
        if change.submodule:
            return None if change.moved else "it is a submodule with uncommitted changes"
        if change.path.endswith(b"/"):
            return "it is a git tree of its own"
        found = tree.file_status(change)
        if change.staged == "D" or found is None or stat.S_ISDIR(found.st_mode):
            return None  # Torch commits every deletion
        if reason := self.reason_by_name(change.path) or self.reason_by_size(found.st_size):
            return reason
        if stat.S_ISLNK(found.st_mode):
            return None
        mark = (change.path, f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {change.committed}".encode())
        if mark not in self._known:
            try:
                text = (tree.top / os.fsdecode(change.path)).read_bytes()
            except OSError as error:
                return f"it cannot be read: {error.strerror}"
            self._known[mark] = self.reason_by_text(text, lambda: blob(tree, change.committed))
        known[mark] = self._known[mark]
        return known[mark]


def blob(tree: Tree, name: str | None) -> bytes:
    """The content of a blob; empty if there is none."""
    if name is None:
        return b""
    try:
        return tree.git.run("cat-file", "blob", name)
    except GitRefused:  # a submodule stood there
        return b""
