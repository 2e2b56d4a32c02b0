"""A real git repository of a user's, for the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from torch_tasks.settings import Settings
from torch_tasks.workers.git.box import GitBox
from torch_tasks.workers.git.commit import CommitOutcome, CommitText, commit_work
from torch_tasks.workers.git.exclusions import CommitFilter
from torch_tasks.workers.git.policy import RolePolicy
from torch_tasks.workers.git.tree import Tree

#: Nothing of this machine's own configuration counts.
ALONE = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


DEFAULTS = RolePolicy(enabled=True)
SANDBOX = "auto"


class Repository:
    """A repository with one commit on its default branch."""

    def __init__(self, folder: Path, branch: str = "main") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch", branch)
        self.git("config", "user.name", "Owner")
        self.git("config", "user.email", "owner@example.org")
        self.write("app.py", "print('one')\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "first")

    def git(self, *words: str, code: int | None = 0, **variables: str) -> str:
        """What git prints; it must end with this code."""
        done = subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env={**os.environ, **ALONE, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
        assert code in (None, done.returncode), f"git {words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, name: str | bytes, text: str | bytes) -> Path:
        """A file of the tree."""
        file = self.folder / os.fsdecode(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def hook(self, name: str, script: str) -> None:
        """Write a hook of the owner's."""
        file = self.write(f".git/hooks/{name}", f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)

    @property
    def branch(self) -> str:
        """What is checked out; empty if it is no branch."""
        return self.git("symbolic-ref", "--quiet", "--short", "HEAD", code=None).strip()

    def head(self, ref: str = "HEAD") -> str:
        """The commit that a name stands for."""
        return self.git("rev-parse", "--verify", "--quiet", ref, code=None).strip()

    def files(self, ref: str = "HEAD") -> set[str]:
        """The names of a commit's files."""
        return set(self.git("ls-tree", "-r", "--name-only", "-z", ref).split("\0")) - {""}

    def show(self, name: str, ref: str = "HEAD") -> str:
        """What a file held in a commit."""
        return self.git("show", f"{ref}:{name}")

    def status(self) -> str:
        """Git's short status."""
        return self.git("status", "--short", "--untracked-files=all")

    def staged(self) -> str:
        """Every entry of the index."""
        return self.git("ls-files", "--stage", "-z")


def committed(repo: Repository, policy: RolePolicy = DEFAULTS, title: str = "make it two") -> CommitOutcome:
    """Commit the work in the tree, as the node worker does, in a box where there can be one; with what was left out."""
    settings = Settings(state_dir=repo.folder.with_name("state"), sandbox=SANDBOX)
    tree = Tree.around(repo.folder, GitBox.of("dev-1", settings))
    assert tree
    judge, status = CommitFilter(policy), tree.status()
    taken, left = judge.sort(tree, status.changes)
    outcome = commit_work(tree, status, taken, judge, policy, CommitText("dev-1", title, "t-1"))
    return CommitOutcome(outcome.commits, (*left, *outcome.left_out), outcome.trouble)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the user's git configuration from this process."""
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A repository whose default branch is checked out."""
    return Repository(tmp_path / "repo")


@pytest.fixture
def own(repo: Repository) -> Repository:
    """The same on a branch of the agent's."""
    repo.git("switch", "--quiet", "-c", "mine")
    return repo
