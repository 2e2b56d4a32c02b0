"""What is staged, what hooks say, and a sudden death: a commit of Torch's is made whole, or nothing has changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from git_parts import Repository, committed
from git_parts import alone as alone
from git_parts import own as own
from git_parts import repo as repo
from waiting import until

from torch_tasks.workers.git.commit import CommitOutcome
from torch_tasks.workers.git.policy import RolePolicy

# ── what is staged ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_staged_and_stands_nowhere_else_is_committed_first(own: Repository) -> None:
    own.write("app.py", "print('staged')\n")
    own.git("add", "app.py")
    own.write("app.py", "print('later')\n")
    own.write("more.py", "x = 1\n")
    assert committed(own) == CommitOutcome(commits=2)
    assert own.show("app.py", "HEAD~1") == "print('staged')\n"
    assert own.show("app.py") == "print('later')\n"
    assert (own.files("HEAD~1"), own.status()) == ({"app.py"}, "")


def test_a_file_taken_out_of_the_index_on_purpose_does_not_come_back(own: Repository) -> None:
    own.git("rm", "--quiet", "--cached", "app.py")
    own.write("more.py", "x = 1\n")
    assert committed(own) == CommitOutcome(commits=1)
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
    assert committed(repo) == CommitOutcome(commits=1)
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
    own.hook("pre-commit", "sleep 600 & sleep 600")
    own.write("app.py", "print('two')\n")
    before = own.head(), own.status(), own.staged()
    outcome = committed(own, RolePolicy(enabled=True, hook_seconds=0.5))
    assert "took longer than 0.5 s" in str(outcome.trouble)
    assert (own.head(), own.status(), own.staged()) == before
    until(lambda: not _inside(own.folder), "what the hook started has ended")


def _inside(folder: Path) -> list[psutil.Process]:
    """The processes that work in the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(process)
    return found


def test_what_a_hook_leaves_in_the_background_holds_nobody_up(own: Repository) -> None:
    own.hook("post-commit", "sleep 30 & ")
    own.write("app.py", "print('two')\n")
    began = time.monotonic()
    assert committed(own) == CommitOutcome(commits=1)
    assert time.monotonic() - began < 20


def test_a_hook_that_puts_files_right_has_the_last_word(own: Repository) -> None:
    own.hook("pre-commit", "sed -i s/two/TWO/ app.py; echo made > made.txt; git add app.py made.txt")
    own.write("app.py", "print('two')\n")
    assert committed(own) == CommitOutcome(commits=1)
    assert (own.show("app.py"), own.files(), own.status()) == ("print('TWO')\n", {"app.py", "made.txt"}, "")


def test_what_the_agent_stages_and_commits_while_a_hook_runs_is_kept(own: Repository) -> None:
    own.hook("pre-commit", "touch .git/reached; while [ -e .git/reached ]; do sleep 0.02; done; exit 1")
    own.write("app.py", "print('two')\n")
    own.write("theirs.py", "x = 1\n")
    outcome: list[CommitOutcome] = []
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
    assert committed(own) == CommitOutcome(commits=1)
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
    once = own.folder / ".git" / "once"
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
    assert "another commit was made in" in str(outcome.trouble)
    assert own.git("log", "-1", "--format=%s") == "theirs\n"
    committed(own)
    assert own.files() == {"app.py", "new.py", "theirs"}
    assert (own.show("app.py"), own.status()) == ("print('two')\n", "")


# ── a sudden death ───────────────────────────────────────────────────────────────────────────────────────────────


COMMIT = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from git_parts import Repository, committed
repo = object.__new__(Repository)
repo.folder = Path(sys.argv[1])
print(committed(repo))
"""


def _start(repo: Repository) -> subprocess.Popen[bytes]:
    here = Path(__file__).parents[1]
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
    own.hook("pre-commit", "touch .git/reached; exec sleep 600")
    own.write("app.py", "print('two')\n")
    own.write("new.py", "x = 1\n")
    first = own.head()
    process = _start(own)
    until((own.folder / ".git" / "reached").exists, "the hook runs", 60)
    process.kill()
    process.wait()
    for left in _inside(own.folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    assert own.head() == first
    assert (own.folder / "new.py").read_text() == "x = 1\n"
    own.hook("pre-commit", "exit 0")
    assert committed(own) == CommitOutcome(commits=1)
    assert (own.files(), own.status()) == ({"app.py", "new.py"}, "")
