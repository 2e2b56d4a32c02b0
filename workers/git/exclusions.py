"""What Torch never commits: secrets, huge files, git trees inside the tree."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from torch_tasks.errors import GitRefused
from torch_tasks.redaction import secrets_in
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


class CommitFilter:
    """Decides what Torch leaves out of a tree's commits, and why."""

    def __init__(self, policy: RolePolicy) -> None:
        self._limit = policy.file_limit_bytes
        self._names = tuple(glob.lower() for glob in (*_SECRET_FILES, *policy.secret_files))
        self._texts = [(f"a text that git.toml names ({text})", re.compile(text)) for text in policy.secret_texts]
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
        if found := self._secrets_in(text):
            old = self._secrets_in(before())
            return next((f"it holds {what}" for secret, what in found.items() if secret not in old), None)
        return None

    def _secrets_in(self, blob: bytes) -> dict[str, str]:
        """Each secret in a file, and what it is."""
        text = blob.decode(errors="replace")
        known = {text[secret.start : secret.end]: secret.what for secret in secrets_in(text)}
        return known | {match[0]: what for what, named in self._texts for match in named.finditer(text)}

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
