"""A commit of Torch's in a real tree: everything that may be in it, or nothing and the tree as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from git_parts import ALONE, Repository
from waiting import until

from torch_tasks.orchestration.git_reports import TreeReport
from workers.git.commit import Outcome, Words, commit_work
from workers.git.left_out import Judge
from workers.git.policy import RolePolicy
from workers.git.tree import Tree

KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nabc\n"
TOKEN = "ghp_" + "a1B2" * 10
DEFAULTS = RolePolicy(enabled=True)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
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


def committed(repo: Repository, policy: RolePolicy = DEFAULTS, title: str = "make it two") -> Outcome:
    """Commit what the tree holds, as an agent's node would; with what was left out."""
    tree = Tree.around(repo.folder)
    assert tree
    judge, status = Judge(policy), tree.status()
    taken, left = judge.sort(tree, status.changes)
    outcome = commit_work(tree, status, taken, judge, policy, Words("dev-1", title, "t-1"))
    return Outcome(outcome.commits, (*left, *outcome.left_out), outcome.trouble)


# ── where ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_on_the_default_branch_goes_to_the_agents_own(repo: Repository) -> None:
    first = repo.head()
    repo.write("app.py", "print('two')\n")
    repo.write("new/file.txt", "new\n")
    assert committed(repo) == Outcome(commits=1)
    assert (repo.branch, repo.head("main"), repo.status()) == ("torch/dev-1", first, "")
    assert repo.files() == {"app.py", "new/file.txt"}
    assert repo.show("app.py") == "print('two')\n"
    message = repo.git("log", "-1", "--format=%B")
    assert message.startswith("Progress: make it two\n\n app.py")
    assert "2 files changed" in message
    assert message.rstrip().endswith("Torch-Agent: dev-1\nTorch-Task: t-1")


def test_work_on_another_branch_stays_there(own: Repository) -> None:
    own.write("app.py", "print('two')\n")
    assert committed(own) == Outcome(commits=1)
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
    assert committed(repo, policy) == Outcome(commits=1)
    assert (repo.branch, repo.head(branch)) == ("torch/dev-1", first)
    repo.git("switch", "--quiet", branch)
    repo.write("app.py", "print('three')\n")
    assert committed(repo, policy) == Outcome(commits=1)
    assert (repo.branch, repo.head(branch)) == ("torch/dev-1-2", first)


def test_an_own_branch_that_was_merged_is_used_again(repo: Repository) -> None:
    repo.write("app.py", "print('two')\n")
    committed(repo)
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "torch/dev-1")
    repo.write("app.py", "print('three')\n")
    assert committed(repo) == Outcome(commits=1)
    assert (repo.branch, repo.show("app.py")) == ("torch/dev-1", "print('three')\n")
    assert repo.git("branch", "--list", "torch/*").split() == ["*", "torch/dev-1"]


def test_the_very_first_commit_is_the_agents_own(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(folder)], check=True)
    (folder / "app.py").write_text("print('one')\n")
    repo = object.__new__(Repository)
    repo.folder = folder
    assert committed(repo) == Outcome(commits=1)
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
    assert committed(repo) == Outcome(trouble="no branch is checked out (detached HEAD)")
    assert (repo.status(), repo.git("log", "--all", "--format=%s")) == (" M app.py\n", "first\n")


def test_nothing_is_committed_while_another_git_is_at_work(own: Repository) -> None:
    own.write("app.py", "print('two')\n")
    lock = own.write(".git/index.lock", "")
    outcome = committed(own)
    assert (outcome.commits, own.status()) == (0, " M app.py\n")
    assert "index.lock exists" in str(outcome.trouble)
    assert lock.exists()
    lock.unlink()
    assert committed(own) == Outcome(commits=1)


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
        ".env": "its name is a secret's",
        "deploy/server.PEM": "its name is a secret's",
        "id_rsa": "its name is a secret's",
        "terraform.tfstate": "its name is a secret's",
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
    assert committed(own) == Outcome(commits=1)
    assert own.files() == {"app.py", "config.py"}


def test_names_are_taken_as_they_are(own: Repository) -> None:
    names = [b"-x", b"--force", b"a\nb", b'"q"', b"$(touch pwned)", b":(top)x", b"*", b"sp ace", b"\xff\xfe", b"tab\t"]
    names += [b"dir/:!y", b"Torch-Task: forged\nTorch-Agent: nobody"]
    for name in names:
        own.write(name, "x\n")
    assert committed(own, title="; touch pwned\x00\nTorch-Task: forged".splitlines()[0][:12]) == Outcome(commits=1)
    assert {os.fsencode(name) for name in own.files()} == {b"app.py", *names}
    assert own.status() == ""
    trailers = own.git("log", "-1", "--format=%(trailers:key=Torch-Task,valueonly)")
    assert trailers.split() == ["t-1"]
    for name in names[:6]:
        (own.folder / os.fsdecode(name)).unlink()
    assert committed(own) == Outcome(commits=1)
    assert {os.fsencode(name) for name in own.files()} == {b"app.py", *names[6:]}


def test_a_file_may_become_a_folder_and_a_folder_a_file(own: Repository) -> None:
    own.write("folder/one", "1\n")
    own.write("other", "o\n")
    assert committed(own) == Outcome(commits=1)
    own.git("rm", "--quiet", "-r", "folder")
    own.write("folder", "now a file\n")
    (own.folder / "other").unlink()
    own.write("other/inside", "i\n")
    assert committed(own) == Outcome(commits=1)
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
        "lib": "it is a submodule in which something is not committed",
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


# ── what is staged ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_staged_and_stands_nowhere_else_is_committed_first(own: Repository) -> None:
    own.write("app.py", "print('staged')\n")
    own.git("add", "app.py")
    own.write("app.py", "print('later')\n")
    own.write("more.py", "x = 1\n")
    assert committed(own) == Outcome(commits=2)
    assert own.show("app.py", "HEAD~1") == "print('staged')\n"
    assert own.show("app.py") == "print('later')\n"
    assert (own.files("HEAD~1"), own.status()) == ({"app.py"}, "")


def test_a_file_taken_out_of_the_index_on_purpose_does_not_come_back(own: Repository) -> None:
    own.git("rm", "--quiet", "--cached", "app.py")
    own.write("more.py", "x = 1\n")
    assert committed(own) == Outcome(commits=1)
    assert (own.files(), own.status()) == ({"more.py"}, "?? app.py\n")


@pytest.mark.parametrize("branch", ["main", "mine"])
def test_a_hook_that_refuses_leaves_everything_as_it_was(repo: Repository, branch: str) -> None:
    repo.git("switch", "--quiet", "-C", branch)
    repo.hook("pre-commit", "echo 'tests fail: 3 of 7' >&2; exit 1")
    repo.write("app.py", "print('two')\n")
    repo.git("add", "app.py")
    repo.write("announced.py", "x = 1\n")
    repo.git("add", "--intent-to-add", "announced.py")
    repo.write("new.py", "x = 1\n")
    before = repo.head(), repo.branch, repo.status(), repo.staged(), repo.git("branch")
    outcome = committed(repo)
    assert "tests fail: 3 of 7" in str(outcome.trouble)
    assert (repo.head(), repo.branch, repo.status(), repo.staged(), repo.git("branch")) == before
    repo.hook("pre-commit", "exit 0")
    assert committed(repo) == Outcome(commits=1)
    assert repo.files() == {"app.py", "announced.py", "new.py"}


def test_a_refusal_keeps_what_is_staged_and_stands_nowhere_else(own: Repository) -> None:
    own.write("app.py", "print('staged')\n")
    own.git("add", "app.py")
    own.write("app.py", "print('later')\n")
    own.hook("commit-msg", "exit 1")
    before = own.head(), own.status(), own.staged()
    assert committed(own).commits == 0
    assert (own.head(), own.status(), own.staged()) == before


def test_a_hook_that_hangs_is_ended_with_all_that_it_started(own: Repository) -> None:
    own.hook("pre-commit", "sleep 600 & echo $! > .git/sleeper; sleep 600")
    own.write("app.py", "print('two')\n")
    before = own.head(), own.status(), own.staged()
    outcome = committed(own, RolePolicy(enabled=True, hook_seconds=0.5))
    assert "took longer than 0.5 s" in str(outcome.trouble)
    assert (own.head(), own.status(), own.staged()) == before
    sleeper = int((own.folder / ".git" / "sleeper").read_text())
    until(lambda: not Path(f"/proc/{sleeper}").exists() or _is_zombie(sleeper), "what the hook started has ended")


def _is_zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_what_a_hook_leaves_in_the_background_holds_nobody_up(own: Repository) -> None:
    own.hook("post-commit", "sleep 5 & ")
    own.write("app.py", "print('two')\n")
    began = time.monotonic()
    assert committed(own) == Outcome(commits=1)
    assert time.monotonic() - began < 5


def test_a_hook_that_puts_files_right_has_the_last_word(own: Repository) -> None:
    own.hook("pre-commit", "sed -i s/two/TWO/ app.py; echo made > made.txt; git add app.py made.txt")
    own.write("app.py", "print('two')\n")
    assert committed(own) == Outcome(commits=1)
    assert (own.show("app.py"), own.files(), own.status()) == ("print('TWO')\n", {"app.py", "made.txt"}, "")


def test_what_the_agent_stages_and_commits_while_a_hook_runs_is_kept(own: Repository) -> None:
    own.hook("pre-commit", "touch .git/reached; while [ -e .git/reached ]; do sleep 0.02; done; exit 1")
    own.write("app.py", "print('two')\n")
    own.write("theirs.py", "x = 1\n")
    outcome: list[Outcome] = []
    policy = RolePolicy(enabled=True, secret_files=("theirs.py",))
    thread = threading.Thread(target=lambda: outcome.append(committed(own, policy)))
    thread.start()
    until((own.folder / ".git" / "reached").exists, "the hook runs")
    own.git("add", "theirs.py")
    (own.folder / ".git" / "reached").unlink()
    thread.join(30)
    assert outcome[0].commits == 0
    assert own.status() == " M app.py\nA  theirs.py\n"


def test_a_hook_may_commit_on_top(own: Repository) -> None:
    own.hook(
        "post-commit", "[ -e .git/1 ] || { touch .git/1; unset GIT_INDEX_FILE; git commit -qm more --allow-empty; }"
    )
    own.write("app.py", "print('two')\n")
    assert committed(own) == Outcome(commits=1)
    assert own.git("log", "-2", "--format=%s") == "more\nProgress: make it two\n"
    assert own.status() == ""


def test_an_agent_that_commits_while_a_hook_runs_wins(own: Repository) -> None:
    own.hook("pre-commit", "unset GIT_INDEX_FILE; echo x > theirs; git add theirs; git commit -qnm theirs")
    own.write("app.py", "print('two')\n")
    assert "cannot lock ref" in str(committed(own).trouble)
    assert own.git("log", "-1", "--format=%s") == "theirs\n"
    assert (own.files(), own.show("app.py"), own.status()) == ({"app.py", "theirs"}, "print('two')\n", "")


def test_an_agent_that_commits_a_moment_before_us_is_not_undone(
    own: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our last look and git's first one; for that moment a commit is made in front of git itself."""
    git, shim = shutil.which("git"), tmp_path / "bin" / "git"
    shim.parent.mkdir()
    theirs = f"(unset GIT_INDEX_FILE; echo x > theirs; {git} add theirs; {git} commit -qm theirs)"
    once = f"{tmp_path}/once"
    shim.write_text(
        f'#!/bin/bash\n[[ " $* " = *" commit "* && ! -e {once} ]] && touch {once} && {theirs}\nexec {git} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    own.write("app.py", "print('two')\n")
    own.write("new.py", "x = 1\n")
    own.git("rm", "--quiet", "--cached", "app.py")
    own.git("add", "--intent-to-add", "app.py")
    outcome = committed(own)
    assert "somebody else has committed" in str(outcome.trouble)
    assert own.git("log", "-1", "--format=%s") == "theirs\n"
    committed(own)
    assert own.files() == {"app.py", "new.py", "theirs"}
    assert (own.show("app.py"), own.status()) == ("print('two')\n", "")


# ── a sudden death ───────────────────────────────────────────────────────────────────────────────────────────────


COMMIT = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from git_parts import Repository
from test_git_commits import committed
repo = object.__new__(Repository)
repo.folder = Path(sys.argv[1])
print(committed(repo))
"""


def _start(repo: Repository) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    argv = [sys.executable, "-c", COMMIT, str(repo.folder), str(here), str(here.parent), str(here.parents[1])]
    return subprocess.Popen(argv, env={**os.environ, "TMPDIR": str(repo.folder.parent)}, start_new_session=True)


@pytest.mark.parametrize("hook", ["pre-commit", "post-commit"])
def test_who_is_killed_within_a_commit_leaves_it_done_or_to_be_done(own: Repository, hook: str) -> None:
    """The commit is finished by git, which outlives us, or git is killed as well and the next one takes the work."""
    own.hook(hook, "touch .git/reached; while [ -e .git/reached ]; do sleep 0.02; done")
    own.write("app.py", "print('two')\n")
    own.write("new.py", "x = 1\n")
    first = own.head()
    process = _start(own)
    reached = own.folder / ".git" / "reached"
    until(reached.exists, "the hook runs", 60)
    process.kill()
    process.wait()
    reached.unlink()
    until(lambda: own.head() != first and own.status() == "", "git ends what it began")
    assert own.files() == {"app.py", "new.py"}


def test_who_is_killed_with_git_leaves_the_work_for_the_next_commit(own: Repository) -> None:
    own.hook("pre-commit", "ps -o ppid= $PPID > .git/ppid; echo $PPID > .git/pid; touch .git/reached; sleep 600")
    own.write("app.py", "print('two')\n")
    own.write("new.py", "x = 1\n")
    first = own.head()
    process = _start(own)
    until((own.folder / ".git" / "reached").exists, "the hook runs", 60)
    process.kill()
    process.wait()
    os.killpg(int((own.folder / ".git" / "pid").read_text()), signal.SIGKILL)
    assert own.head() == first
    assert (own.folder / "new.py").read_text() == "x = 1\n"
    own.hook("pre-commit", "exit 0")
    assert committed(own) == Outcome(commits=1)
    assert (own.files(), own.status()) == ({"app.py", "new.py"}, "")
