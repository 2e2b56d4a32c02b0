"""Looking at a tree runs no program that its configuration names, which an agent may have written; committing may."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from git_parts import Repository, committed
from git_parts import alone as alone
from git_parts import own as own
from git_parts import repo as repo

from torch_tasks.workers.git.commit import CommitOutcome
from torch_tasks.workers.git.tree import Tree, branch_or_commit, uncommitted_changes
from torch_tasks.workers.sandbox.ability import why_not


def program(folder: Path, *, passes_on: bool = False) -> tuple[Path, Path]:
    """A program of the agent's, and the mark that it leaves when it runs."""
    file, mark = folder / "program", folder / "mark"
    file.write_text(f"#!/bin/bash\ntouch {mark}\n{'tr a-z A-Z' if passes_on else 'exit 1'}\n")
    file.chmod(0o755)
    return file, mark


def look(folder: Path) -> None:
    """Every look that Torch takes at a tree."""
    tree = Tree.around(folder)
    assert tree
    status = tree.status()
    assert "app.py" in {change.name for change in status.changes}, "the change is seen"
    tree.obstacle(status)
    tree.oldest(status.changes)
    tree.last_commit()
    tree.last_tag()
    assert branch_or_commit(folder)
    assert "+print('two')" in (uncommitted_changes(folder, 10_000) or "")


SETTINGS = {
    "monitor": {"core.fsmonitor": "{program}"},
    "external diff": {"diff.external": "{program}"},
    "diff driver": {"diff.own.command": "{program}"},
    "text of a diff": {"diff.own.textconv": "{program}"},
    "filter": {"filter.own.clean": "{program}", "filter.own.required": "true"},
    "filter process": {"filter.own.process": "{program}", "filter.own.required": "true"},
    "pager": {"core.pager": "{program}", "pager.status": "true", "pager.diff": "true"},
    "signature": {"log.showSignature": "true", "gpg.program": "{program}"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_look_runs_nothing_that_the_configuration_names(own: Repository, tmp_path: Path, name: str) -> None:
    file, mark = program(tmp_path)
    own.write(".gitattributes", "*.py diff=own filter=own\n")
    own.git("add", "--all")
    own.git("commit", "--quiet", "--message", "attributes")
    for key, value in SETTINGS[name].items():
        own.git("config", key, value.format(program=file))
    own.write("app.py", "print('two')\n")
    look(own.folder)
    assert not mark.exists()


def test_a_filter_may_have_any_name(own: Repository, tmp_path: Path) -> None:
    file, mark = program(tmp_path)
    with (own.folder / ".git" / "config").open("a") as config:
        config.write(f'[filter "a=b.c"]\n\tclean = {file}\n')
    own.write(".git/info/attributes", "*.py filter=a=b.c\n")
    own.write("app.py", "print('two')\n")
    look(own.folder)
    assert not mark.exists()


def test_a_look_runs_no_hook(own: Repository, tmp_path: Path) -> None:
    file, mark = program(tmp_path)
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        own.hook(hook, str(file))
    own.write("app.py", "print('two')\n")
    look(own.folder)
    assert not mark.exists()


@pytest.mark.parametrize("key", ["core.fsmonitor", "filter.own.clean"])
def test_a_look_runs_nothing_inside_a_submodule(own: Repository, tmp_path: Path, key: str) -> None:
    file, mark = program(tmp_path)
    library = Repository(tmp_path / "library")
    own.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.folder), "lib")
    own.git("commit", "--quiet", "--message", "library")
    inside = own.folder / "lib"
    subprocess.run(["git", "config", key, str(file)], cwd=inside, check=True)
    attributes = own.folder / ".git" / "modules" / "lib" / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("*.py filter=own\n")
    (inside / "app.py").write_text("print('three')\n")
    own.write("app.py", "print('two')\n")
    look(own.folder)
    assert not mark.exists()


def test_a_look_fetches_nothing(own: Repository, tmp_path: Path) -> None:
    """A partial clone fetches what it lacks, through a program that its configuration names."""
    file, mark = program(tmp_path)
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(tmp_path),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": str(file),
        "protocol.file.allow": "always",
    }.items():
        own.git("config", key, value)
    blob = own.git("rev-parse", "HEAD:app.py").strip()
    (own.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    own.write("app.py", "print('two')\n")
    tree = Tree.around(own.folder)
    assert tree
    tree.status()
    uncommitted_changes(own.folder, 10_000)
    assert not mark.exists()


def test_a_commit_keeps_what_a_filter_makes_of_a_file(own: Repository) -> None:
    """Git LFS is such a filter: without it, a huge file would be committed in the place of its pointer."""
    file, mark = program(own.folder / ".git", passes_on=True)
    own.git("config", "filter.own.clean", str(file))
    own.write(".git/info/attributes", "*.txt filter=own\n")
    own.write("words.txt", "words\n")
    assert committed(own) == CommitOutcome(commits=1)
    assert own.show("words.txt") == "WORDS\n"
    assert mark.exists()


def test_a_hook_finds_no_secret_of_the_workers_in_its_environment(
    own: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"TORCH_BROKER_URL": "redis://:secret@broker", "GITHUB_TOKEN": "secret", "DATABASE_URL": "secret"}
    for name, value in {**secrets, "SSH_AUTH_SOCK": "/tmp/agent"}.items():
        monkeypatch.setenv(name, value)
    own.hook("pre-commit", "env > .git/environment")
    own.write("app.py", "print('two')\n")
    assert committed(own) == CommitOutcome(commits=1)
    lines = (own.folder / ".git/environment").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    assert found.keys() & secrets.keys() == set()
    assert found.get("SSH_AUTH_SOCK") == ("/tmp/agent" if why_not() else None), "only unboxed"
    assert found["GIT_PAGER"] == "cat"
    assert found["PATH"]


@pytest.mark.skipif(bool(why_not()), reason=f"{why_not()}")
def test_a_filter_that_the_box_does_not_show_keeps_its_files_out(own: Repository, tmp_path: Path) -> None:
    """Without the filter, git would take the files as they are: each huge one, and each that is to be encrypted."""
    file, mark = program(tmp_path, passes_on=True)
    own.git("config", "filter.own.clean", str(file))
    own.write(".git/info/attributes", "*.txt filter=own\n")
    own.write("words.txt", "words\n")
    assert "clean filter 'own' failed" in str(committed(own).trouble)
    assert not mark.exists()
    assert "words.txt" not in own.files()
