"""An agent writes hooks that run when Torch itself changes the tree: they see and reach no more than the agent."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import short_folder

from torch_tasks.errors import GitRefused
from torch_tasks.settings import Settings
from torch_tasks.state_folder import JOURNAL
from torch_tasks.workers.folders import AgentJournal
from torch_tasks.workers.git import box as module
from torch_tasks.workers.git.box import GitBox
from torch_tasks.workers.git.tree import Tree
from torch_tasks.workers.sandbox.ability import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"{why_not()}")

HOOK = """#!/bin/bash
exec >said 2>&1
for file in {places}; do cat "$file" && echo "READ $file"; done
echo evil >>~/.bashrc
echo evil >.git/config
echo evil >{outside}/left
env
(exec 3<>/dev/tcp/127.0.0.1/{port}) && echo "REACHED"
echo looked
"""


class Victim:
    """A user with keys, and the tree of an agent whose hooks lie in the tree itself."""

    def __init__(self, folder: Path) -> None:
        self.home, self.tree, self.state = folder / "home", folder / "tree", folder / "state"
        self.keys = folder / "keys"
        self.secrets = [self.home / ".ssh/id_ed25519", self.state / "broker.json", self.keys / "root.key"]
        for secret in self.secrets:
            secret.parent.mkdir(parents=True)
            secret.write_text("a secret\n")
        shown = (str(folder),)
        self.settings = Settings(state_dir=self.state, keys_dir=self.keys, sandbox="always", sandbox_readable=shown)
        self.tree.mkdir()
        self.git("init", "-q", "-b", "mine")
        self.git("config", "core.hooksPath", "hooks")
        self.git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-q", "--allow-empty", "-m", "one")

    def git(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self.tree, check=True, capture_output=True, text=True).stdout

    def hook(self, name: str, script: str) -> None:
        file = self.tree / "hooks" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(script)
        file.chmod(0o755)

    def changed(self, *words: str, adds: Path | None = None) -> str:
        """What git and its hooks say when Torch makes this change."""
        tree = Tree.around(self.tree, GitBox.of("dev-1", self.settings))
        assert tree
        return tree.git.change("-c", "user.name=A", "-c", "user.email=a@example.org", *words, adds=adds).decode()


@pytest.fixture
def victim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Victim]:
    folder = short_folder()
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("GITHUB_TOKEN", "a secret")
    yield Victim(folder)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_a_hook_of_a_commit_looks_around(victim: Victim) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = " ".join(map(str, victim.secrets))
        script = HOOK.format(places=places, outside=victim.home.parent, port=server.getsockname()[1])
        victim.hook("pre-commit", script)
        victim.changed("commit", "-q", "--allow-empty", "-m", "two")
    said = (victim.tree / "said").read_text()
    assert said.endswith("looked\n")
    assert "READ" not in said
    assert "REACHED" not in said
    assert "a secret" not in said
    assert "evil" not in (victim.tree / ".git/config").read_text()
    assert not (victim.home / ".bashrc").exists()
    assert not (victim.home.parent / "left").exists()
    assert victim.git("log", "-1", "--format=%s") == "two\n"


def test_a_hook_of_a_tree_that_is_added_looks_around(victim: Victim) -> None:
    added = victim.state / "worktrees/t-1"
    added.mkdir(parents=True)
    (victim.state / "worktrees/t-2").mkdir()
    said = victim.tree / "said"
    victim.hook("post-checkout", f"#!/bin/sh\ncat {victim.secrets[1]} >{said}; ls {victim.state}/worktrees >>{said}\n")
    victim.git("add", "hooks")
    victim.changed("commit", "-q", "-m", "hooks")
    victim.changed("worktree", "add", "--quiet", "-b", "t-1", str(added / "tree"), adds=added)
    assert (added / "tree/hooks/post-checkout").exists()
    assert said.read_text() == "t-1\n"


def test_git_is_not_run_where_it_must_be_boxed_and_cannot(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_not", lambda: "there is no bubblewrap")
    with pytest.raises(GitRefused, match="there is no bubblewrap"):
        GitBox.of("dev-1", victim.settings)
    assert GitBox.of("dev-1", victim.settings.model_copy(update={"sandbox": "auto"})) is None


@pytest.mark.parametrize(
    ("machine", "noted", "boxed"),
    [
        ("auto", None, True),
        ("auto", "boxed", True),
        ("auto", "not boxed: sandbox = never (its declaration)", False),
        ("never", None, False),
        ("never", "boxed", True),  # by its own declaration
        ("always", "not boxed: it was so before", True),
    ],
)
def test_git_is_boxed_as_the_agent_is(victim: Victim, machine: str, noted: str | None, boxed: bool) -> None:
    settings = victim.settings.model_copy(update={"sandbox": machine})
    if noted:
        journal = settings.state.agent("dev-1") / JOURNAL
        journal.parent.mkdir(parents=True)
        AgentJournal(agent_id="dev-1", kind="shell", sandbox=noted).write(journal)
    assert (GitBox.of("dev-1", settings) is not None) == boxed
