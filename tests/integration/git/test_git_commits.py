"""A commit of Torch's in a real tree: everything that may be in it, or nothing and the tree as it was."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from git_parts import DEFAULTS, Repository, committed
from git_parts import alone as alone
from git_parts import own as own
from git_parts import repo as repo

from torch_tasks.store.git_reports import TreeReport
from torch_tasks.workers.git.commit import CommitOutcome
from torch_tasks.workers.git.policy import RolePolicy
from torch_tasks.workers.git.tree import Tree

KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\n" + "b3BlbnNzaC1rZXkt" * 4 + "\n"
TOKEN = "ghp_" + "a1B2" * 10


# ── where ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_on_the_default_branch_goes_to_the_agents_own(repo: Repository) -> None:
    first = repo.head()
    repo.write("app.py", "print('two')\n")
    repo.write("new/file.txt", "new\n")
    assert committed(repo) == CommitOutcome(commits=1)
    assert (repo.branch, repo.head("main"), repo.status()) == ("torch/dev-1", first, "")
    assert repo.files() == {"app.py", "new/file.txt"}
    assert repo.show("app.py") == "print('two')\n"
    message = repo.git("log", "-1", "--format=%B")
    assert message.startswith("Progress: make it two\n\n app.py")
    assert "2 files changed" in message
    assert message.rstrip().endswith("Torch-Agent: dev-1\nTorch-Task: t-1")


def test_work_on_another_branch_stays_there(own: Repository) -> None:
    own.write("app.py", "print('two')\n")
    assert committed(own) == CommitOutcome(commits=1)
    assert (own.branch, own.git("branch", "--list", "torch/*")) == ("mine", "")


@pytest.mark.parametrize("branch", ["trunk", "devel", "release/1"])
def test_the_default_branch_is_known_by_whatever_tells_it(tmp_path: Path, branch: str) -> None:
    """By the remote, by being the only one, by the policy."""
    repo = Repository(tmp_path / "origin", branch)
    policy = DEFAULTS
    if branch == "devel":
        repo.git("branch", "other")
        clone = Repository(tmp_path / "clone")
        clone.git("remote", "add", "origin", str(repo.folder))
        clone.git("fetch", "--quiet", "origin")
        clone.git("remote", "set-head", "origin", "--auto")
        clone.git("switch", "--quiet", "devel")
        repo = clone
    elif branch == "release/1":
        repo.git("branch", "main")
        policy = RolePolicy(enabled=True, protected=("release/*",))
    first = repo.head()
    repo.write("app.py", "print('two')\n")
    assert committed(repo, policy) == CommitOutcome(commits=1)
    assert (repo.branch, repo.head(branch)) == ("torch/dev-1", first)
    repo.git("switch", "--quiet", branch)
    repo.write("app.py", "print('three')\n")
    assert committed(repo, policy) == CommitOutcome(commits=1)
    assert (repo.branch, repo.head(branch)) == ("torch/dev-1-2", first)


def test_an_own_branch_that_was_merged_is_used_again(repo: Repository) -> None:
    repo.write("app.py", "print('two')\n")
    committed(repo)
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "torch/dev-1")
    repo.write("app.py", "print('three')\n")
    assert committed(repo) == CommitOutcome(commits=1)
    assert (repo.branch, repo.show("app.py")) == ("torch/dev-1", "print('three')\n")
    assert repo.git("branch", "--list", "torch/*").split() == ["*", "torch/dev-1"]


def test_the_very_first_commit_is_the_agents_own(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(folder)], check=True)
    (folder / "app.py").write_text("print('one')\n")
    repo = object.__new__(Repository)
    repo.folder = folder
    assert committed(repo) == CommitOutcome(commits=1)
    assert (repo.branch, repo.head("refs/heads/main"), repo.files()) == ("torch/dev-1", "", {"app.py"})
    assert repo.git("log", "-1", "--format=%an <%ae>") == "dev-1 <dev-1@torch.invalid>\n"


def test_who_the_owner_says_he_is_stays_the_author(own: Repository) -> None:
    own.write("app.py", "print('two')\n")
    committed(own)
    assert own.git("log", "-1", "--format=%an <%ae>") == "Owner <owner@example.org>\n"


# ── when not ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _conflict(repo: Repository) -> None:
    repo.git("switch", "--quiet", "-c", "theirs")
    repo.write("app.py", "print('theirs')\n")
    repo.git("commit", "--quiet", "--all", "--message", "theirs")
    repo.git("switch", "--quiet", "-c", "mine", "main")
    repo.write("app.py", "print('mine')\n")
    repo.git("commit", "--quiet", "--all", "--message", "mine")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["merge", "theirs"], "a merge"),
        (["rebase", "theirs"], "a rebase"),
        (["cherry-pick", "theirs"], "a cherry-pick"),
        (["revert", "--no-edit", "HEAD~1"], "a revert"),
        (["bisect", "start", "HEAD", "main~0"], "a bisection"),
    ],
)
def test_nothing_is_committed_in_the_middle_of_something(repo: Repository, words: list[str], what: str) -> None:
    _conflict(repo)
    if words[0] == "revert":
        repo.write("app.py", "print('more')\n")
        repo.git("commit", "--quiet", "--all", "--message", "more")
    if words[0] == "bisect":
        repo.git("commit", "--quiet", "--allow-empty", "--message", "empty")
    repo.git(*words, code=None)
    repo.write("notes.txt", "notes\n")
    before = repo.head(), repo.branch, repo.status(), repo.staged()
    outcome = committed(repo)
    assert (outcome.commits, outcome.trouble) == (0, f"{what} is under way")
    assert (repo.head(), repo.branch, repo.status(), repo.staged()) == before


def test_nothing_is_committed_without_a_branch(repo: Repository) -> None:
    repo.git("switch", "--quiet", "--detach")
    repo.write("app.py", "print('two')\n")
    assert committed(repo) == CommitOutcome(trouble="no branch is checked out (detached HEAD)")
    assert (repo.status(), repo.git("log", "--all", "--format=%s")) == (" M app.py\n", "first\n")


def test_nothing_is_committed_while_another_git_is_at_work(own: Repository) -> None:
    own.write("app.py", "print('two')\n")
    lock = own.write(".git/index.lock", "")
    outcome = committed(own)
    assert (outcome.commits, own.status()) == (0, " M app.py\n")
    assert "index.lock exists" in str(outcome.trouble)
    assert lock.exists()
    lock.unlink()
    assert committed(own) == CommitOutcome(commits=1)


# ── what ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_and_huge_files_are_left_out_and_told(own: Repository) -> None:
    own.write(".env", "PASSWORD=x\n")
    own.write("deploy/server.PEM", "x")
    own.write("id_rsa", "x")
    own.write("notes.txt", KEY)
    own.write("config.py", f"token = '{TOKEN}'\n")
    own.write("big.bin", b"0" * 2000)
    own.write("terraform.tfstate", "{}")
    own.write("inner.txt", "internal-0815")
    own.write(".env.example", "PASSWORD=\n")
    own.write("good.py", "x = 1\n")
    own.write("id_rsa.pub", "ssh-rsa AAAA\n")
    policy = RolePolicy(
        enabled=True, file_limit_bytes=1000, secret_files=("*.tfstate",), secret_texts=(r"internal-\d{4}",)
    )
    outcome = committed(own, policy)
    assert (outcome.commits, outcome.trouble) == (1, None)
    assert own.files() == {"app.py", ".env.example", "good.py", "id_rsa.pub"}
    assert {left.path: left.why for left in outcome.left_out} == {
        ".env": "its name is that of a secret",
        "deploy/server.PEM": "its name is that of a secret",
        "id_rsa": "its name is that of a secret",
        "terraform.tfstate": "its name is that of a secret",
        "notes.txt": "it holds a private key",
        "config.py": "it holds a GitHub token",
        "inner.txt": r"it holds a text that git.toml names (internal-\d{4})",
        "big.bin": "it has 2,000 bytes, the limit is 1,000",
    }
    assert own.status().count("??") == 8
    blobs = own.git("cat-file", "--batch-all-objects", "--batch")
    assert TOKEN not in blobs
    assert "PRIVATE KEY" not in blobs


def test_a_secret_that_the_agent_staged_stays_staged_and_uncommitted(own: Repository) -> None:
    own.write(".env", "PASSWORD=x\n")
    own.write("config.py", f"token = '{TOKEN}'\n")
    own.write("app.py", "print('two')\n")
    own.git("add", "--all")
    outcome = committed(own)
    assert (outcome.commits, {left.path for left in outcome.left_out}) == (1, {".env", "config.py"})
    assert own.files() == {"app.py"}
    assert own.status() == "A  .env\nA  config.py\n"


def test_what_was_secret_before_is_no_news_and_a_secret_may_go(own: Repository) -> None:
    own.write("config.py", f"token = '{TOKEN}'\n")
    own.write(".env", "PASSWORD=x\n")
    own.git("add", "--all")
    own.git("commit", "--quiet", "--message", "the owner's")
    own.write("config.py", f"token = '{TOKEN}'\nmore = 1\n")
    own.git("rm", "--quiet", ".env")
    assert committed(own) == CommitOutcome(commits=1)
    assert own.files() == {"app.py", "config.py"}


def test_names_are_taken_as_they_are(own: Repository) -> None:
    names = [b"-x", b"--force", b"a\nb", b'"q"', b"$(touch pwned)", b":(top)x", b"*", b"sp ace", b"\xff\xfe", b"tab\t"]
    names += [b"dir/:!y", b"Torch-Task: forged\nTorch-Agent: nobody"]
    for name in names:
        own.write(name, "x\n")
    assert committed(own, title="; touch pwned\x00\nTorch-Task: forged".splitlines()[0][:12]) == CommitOutcome(
        commits=1
    )
    assert {os.fsencode(name) for name in own.files()} == {b"app.py", *names}
    assert own.status() == ""
    trailers = own.git("log", "-1", "--format=%(trailers:key=Torch-Task,valueonly)")
    assert trailers.split() == ["t-1"]
    for name in names[:6]:
        (own.folder / os.fsdecode(name)).unlink()
    assert committed(own) == CommitOutcome(commits=1)
    assert {os.fsencode(name) for name in own.files()} == {b"app.py", *names[6:]}


def test_a_file_may_become_a_folder_and_a_folder_a_file(own: Repository) -> None:
    own.write("folder/one", "1\n")
    own.write("other", "o\n")
    assert committed(own) == CommitOutcome(commits=1)
    own.git("rm", "--quiet", "-r", "folder")
    own.write("folder", "now a file\n")
    (own.folder / "other").unlink()
    own.write("other/inside", "i\n")
    assert committed(own) == CommitOutcome(commits=1)
    assert own.files() == {"app.py", "folder", "other/inside"}
    assert own.status() == ""


def test_trees_within_the_tree_are_their_own_affair(own: Repository, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    Repository(own.folder / "nested")
    own.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.folder), "lib")
    own.git("commit", "--quiet", "--message", "with a library")
    own.write("lib/app.py", "print('changed')\n")
    outcome = committed(own)
    assert {left.path: left.why for left in outcome.left_out} == {
        "nested/": "it is a git tree of its own",
        "lib": "it is a submodule with uncommitted changes",
    }
    assert outcome.commits == 0
    own.git("-C", "lib", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--all", "-m", "changed")
    assert committed(own).commits == 1
    assert own.git("ls-tree", "HEAD", "lib").split()[2] == own.git("-C", "lib", "rev-parse", "HEAD").strip()


def test_too_many_new_files_are_a_gap_in_gitignore(own: Repository) -> None:
    for number in range(4):
        own.write(f"cache/{number}", "x")
    outcome = committed(own, RolePolicy(enabled=True, new_files_limit=3))
    assert (outcome.commits, own.status().count("??")) == (0, 4)
    assert "missing in .gitignore" in str(outcome.trouble)


def test_a_report_is_text_whatever_the_names_are(own: Repository) -> None:
    own.git("switch", "--quiet", "-c", os.fsdecode(b"br\xff"))
    own.write(b"\xfe.pem", "x")
    own.write("app.py", "print('two')\n")
    outcome = committed(own)
    tree = Tree.around(own.folder)
    assert tree
    report = TreeReport(tree=str(tree.top), branch=tree.status().branch, left_out=outcome.left_out)
    assert TreeReport.model_validate_json(report.model_dump_json()) == report
    assert (report.branch, report.left_out[0].path) == ("br\\xff", "\\xfe.pem")
