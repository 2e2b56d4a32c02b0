"""Git discipline on a real node: work is committed, tasks have branches, verified ends have tags, and all is told."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Say
from git_parts import ALONE, Repository
from machine import Machine
from nodes import Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.machine.broker import administrators_address, start_broker
from torch_tasks.settings import Settings
from torch_tasks.store.git_reports import GitReports


class GitMachine(Machine):
    """A machine whose node worker looks after its agents' git trees, as often as a test can wait."""

    node: subprocess.Popen[str]

    def __init__(self, policy: str, agents: dict[str, tuple[str, Path]]) -> None:
        super().__init__(TORCH_GIT_SECONDS="0.3", **ALONE)
        self.config = self.folder / "config"
        self.config.mkdir()
        self.write_policy(policy)
        told = [
            f'{{id = "{name}", role = "{role}", workdir = "{workdir}"}}' for name, (role, workdir) in agents.items()
        ]
        (self.config / "torch.toml").write_text(f"agents = [{', '.join(told)}]\n")
        home = Settings(state_dir=self.state)
        start_broker(home)
        broker = administrators_address(home)
        self._client = redis.Redis.from_url(broker.url.get_secret_value(), decode_responses=True, protocol=2)
        self.begin()
        for name in agents:
            until(lambda name=name: self._serves(name), f"{name} is ready", 60)

    def write_policy(self, policy: str) -> None:
        """The machine's git.toml."""
        (self.config / "git.toml").write_text(policy)

    def begin(self) -> None:
        """Start the node worker."""
        self.node = self.start("node")

    def end_node(self) -> None:
        """Kill the node worker; its agents stay."""
        self.node.kill()
        self.node.wait()

    def _serves(self, agent_id: str) -> bool:
        online = json.loads(self.torch("agents", "--online", "--json").stdout)
        return agent_id in {info["agent_id"] for info in online if info["state"] == "ready"}

    def report(self, agent_id: str = "dev-1") -> dict[str, Any]:
        """What the fleet is told of the agent's trees; empty if nothing is."""
        found = [one for one in GitReports(self._client).all() if one.agent == agent_id]
        return found[0].model_dump(mode="json") if found else {}

    def trees(self, agent_id: str = "dev-1") -> list[dict[str, Any]]:
        """The trees of the agent's report."""
        return list(self.report(agent_id).get("trees", []))

    def looked(self, agent_id: str = "dev-1") -> dict[str, Any]:
        """The report of a look that began after now."""
        for _ in range(2):  # the first to end may have begun before
            last = self.report(agent_id).get("looked_at", "")
            report = until(
                lambda last=last: (new := self.report(agent_id)) and new["looked_at"] > last and new, "a look"
            )
        return report

    def run(self, prompt: str, *words: str, code: int = 0) -> str:
        """Have dev-1 do a task to its end; what it printed."""
        return self.torch("run", "--wait", "--agent", "dev-1", *words, prompt, code=code).stdout

    def close(self) -> None:
        self._client.close()
        self.end_node()
        super().close()


Start = Callable[..., GitMachine]


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A repository whose default branch is checked out."""
    return Repository(tmp_path / "repo")


@pytest.fixture
def start(repo: Repository) -> Iterator[Start]:
    """Starts a machine with this policy for developers, and dev-1 in the repository unless told otherwise."""
    machines = []

    def begin(policy: str, **agents: tuple[str, Path]) -> GitMachine:
        named = {name.replace("_", "-"): agent for name, agent in agents.items()}
        machines.append(GitMachine(policy, named or {"dev-1": ("developer", repo.folder)}))
        return machines[-1]

    yield begin
    for machine in machines:
        machine.close()


AT_ONCE = "[roles.developer]\nenabled = true\ncommit_minutes = 0.001\n"
LATER = "[roles.developer]\nenabled = true\ncommit_minutes = 30\n"
NEVER = "[roles.developer]\nenabled = true\ncommit_minutes = 0\n"


def test_old_work_is_committed_on_the_agents_branch_and_reported(start: Start, repo: Repository) -> None:
    machine = start(AT_ONCE, dev_1=("developer", repo.folder), qa_1=("qa", repo.folder))
    first = repo.head()
    task = 'echo two > app.py; echo x > .env; until [ -z "$(git status --short app.py)" ]; do sleep 0.1; done'
    machine.run(task, "--id", "t-1")
    message = repo.git("log", "-1", "--format=%B")
    assert message.startswith("Progress: echo two > app.py; ")
    assert message.rstrip().endswith("Torch-Agent: dev-1\nTorch-Task: t-1")
    assert (repo.branch, repo.head("main"), repo.files()) == ("torch/dev-1", first, {"app.py"})
    report = machine.looked()
    [tree] = report["trees"]
    assert (report["role"], tree["branch"], tree["uncommitted"]) == ("developer", "torch/dev-1", 0)
    assert tree["left_out"] == [{"path": ".env", "why": "its name is that of a secret"}]
    assert tree["last_commit"]["subject"].startswith("Progress: echo two")
    assert json.loads(machine.torch("git", "report", "--agent", "dev-1", "--json").stdout)[0]["trees"] == [tree]
    shown = machine.torch("git", "report").stdout
    assert "dev-1: left out: .env: its name is that of a secret" in shown
    assert "torch/dev-1" in shown
    assert machine.report("qa-1") == {}, "the policy says nothing of this role"


def test_young_work_is_left_alone_and_old_work_is_not(start: Start, repo: Repository) -> None:
    machine = start(LATER)
    file = repo.write("app.py", "print('two')\n")
    until(lambda: machine.trees() and machine.trees()[0]["uncommitted"] == 1, "the work is seen")
    [tree] = machine.looked()["trees"]
    since = tree["uncommitted_since"]
    assert repo.status() == " M app.py\n"
    file.write_text("print('three')\n")  # written again, and yet no younger
    assert machine.looked()["trees"][0]["uncommitted_since"] == since
    assert repo.status() == " M app.py\n"
    old = time.time() - 31 * 60
    repo.git("stash", "--quiet")
    repo.git("commit", "--quiet", "--amend", "--no-edit", GIT_COMMITTER_DATE=f"@{old:.0f} +0000")
    repo.git("stash", "pop", "--quiet")
    os.utime(file, (old, old))
    until(lambda: repo.status() == "", "the work is committed")
    assert repo.branch == "torch/dev-1"


def test_nothing_happens_without_a_policy_or_a_tree(start: Start, repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    machine = start(
        AT_ONCE + "[roles.docs]\nenabled = false\n",
        dev_1=("developer", repo.folder),
        dev_2=("developer", tmp_path / "plain"),
        docs_1=("docs", Repository(tmp_path / "docs").folder),
    )
    docs = tmp_path / "docs" / "app.py"
    docs.write_text("changed\n")
    repo.write("app.py", "changed\n")
    until(lambda: repo.status() == "", "the work of dev-1 is committed")
    machine.looked()
    assert (machine.report("dev-2"), machine.report("docs-1")) == ({}, {})
    status = subprocess.run(["git", "status", "--short"], cwd=docs.parent, capture_output=True, text=True, check=True)
    assert status.stdout == " M app.py\n"


def test_a_refusing_hook_is_reported_and_the_work_is_committed_once_it_agrees(start: Start, repo: Repository) -> None:
    repo.hook("pre-commit", "echo 'style: line 1 is too long' >&2; exit 1")
    machine = start(AT_ONCE)
    repo.write("app.py", "print('two')\n")
    until(lambda: "style: line 1 is too long" in str(machine.trees()), "the hook's words are reported")
    assert (repo.status(), repo.branch) == (" M app.py\n", "main")
    assert "dev-1: not committed: git commit in " in machine.torch("git", "report").stdout
    repo.hook("pre-commit", "exit 0")
    until(lambda: repo.status() == "", "the work is committed")
    assert machine.looked()["trees"][0]["trouble"] is None


def test_a_node_worker_that_is_killed_within_a_commit_loses_nothing(start: Start, repo: Repository) -> None:
    repo.hook("pre-commit", "touch .git/reached; while [ -e .git/reached ]; do sleep 0.02; done")
    machine = start(AT_ONCE)
    repo.write("app.py", "print('two')\n")
    repo.write("new.py", "x = 1\n")
    reached = repo.folder / ".git" / "reached"
    until(reached.exists, "the hook runs")
    machine.end_node()
    repo.hook("pre-commit", "exit 0")
    reached.unlink()
    machine.begin()
    until(lambda: repo.status() == "", "the work is committed")
    assert (repo.branch, repo.files(), repo.show("app.py")) == ("torch/dev-1", {"app.py", "new.py"}, "print('two')\n")
    assert repo.git("rev-list", "--count", "HEAD") == "2\n"


def test_two_agents_of_one_tree_get_in_nobodys_way(start: Start, repo: Repository) -> None:
    machine = start(AT_ONCE, dev_1=("developer", repo.folder), dev_2=("developer", repo.folder))
    repo.write("app.py", "print('two')\n")
    until(lambda: repo.status() == "", "the work is committed")
    assert repo.branch == "torch/dev-1"
    assert "dev-1 works in this tree, too, and gets the commits" in machine.looked("dev-2")["trees"][0]["trouble"]


# ── a task's branch, tree and tag ────────────────────────────────────────────────────────────────────────────────


def tags(repo: Repository, pattern: str = "*") -> list[str]:
    """The tags of this name."""
    return repo.git("tag", "--list", pattern).split()


def test_a_task_has_its_branch_and_its_verified_end_a_tag(start: Start, repo: Repository) -> None:
    machine = start(NEVER + "task_branch = true\ntag = true\n")
    first = repo.head()
    said = machine.run("git branch --show-current; echo two > app.py", "--id", "t.1", "--check", "grep -q two app.py")
    assert said == "feature/t.1\n"
    [tag] = until(lambda: tags(repo, "stable-t.1-*"), "the verified end is tagged")
    assert (repo.show("app.py", tag), repo.head("main")) == ("two\n", first)
    assert repo.branch == "feature/t.1"
    told = repo.git("tag", "--list", "--format=%(contents)", tag)
    assert "grep -q two app.py: exit code 0" in told
    assert "Torch-Task: t.1" in told
    assert "branch feature/t.1 in " in machine.torch("task", "t.1").stdout
    until(lambda: machine.trees() and machine.trees()[0]["last_tag"] == tag, "the tag is reported")


def test_a_title_names_branch_and_tag_and_the_summary_says_what_was_changed(start: Start, repo: Repository) -> None:
    machine = start(NEVER + "task_branch = true\ntag = true\n")
    script = (
        "printf 'two\\nthree\\n' > app.py; git commit --quiet --all --message two; echo new > new.txt; echo all done"
    )
    machine.run(script, "--title", "Fix the Greeting!", "--check", "grep -q two app.py")
    [task] = json.loads(machine.torch("tasks", "--json").stdout)
    name = f"fix-the-greeting-{task['spec']['id'][:8]}"
    until(lambda: tags(repo, f"stable-{name}-*"), "the verified end is tagged")
    assert repo.branch == f"feature/{name}"
    machine.run("echo worse > app.py; exit 3", "--title", "Break it", code=1)
    night = json.loads(machine.torch("summary", "--since", "5m", "--json").stdout)
    assert night["counts"] == {"succeeded": 1, "failed": 1}
    done, failed = night["tasks"]
    assert (done["title"], done["agent"], done["check"], done["branch"]) == (
        "Fix the Greeting!",
        "dev-1",
        True,
        f"feature/{name}",
    )
    assert done["changes"] == {"files": 2, "added": 3, "removed": 1}
    assert done["detail"] == "all done"
    assert (failed["title"], failed["check"], failed["detail"]) == ("Break it", None, "exit code 3")
    shown = machine.torch("summary").stdout
    assert "1 succeeded, 1 failed" in shown
    assert "check passed · 2 files +3 -1" in " ".join(shown.split())
    assert machine.torch("summary", "--markdown").stdout.count("| Fix the Greeting! `") == 1


def test_a_task_that_failed_gets_no_tag(start: Start, repo: Repository) -> None:
    machine = start(NEVER + "task_branch = true\ntag = true\n")
    machine.run("echo bad > app.py; exit 3", "--id", "t-1", code=1)
    machine.run("echo worse > app.py", "--id", "t-2", "--check", "false", code=1)
    machine.run("echo good > app.py", "--id", "t-3")
    until(lambda: tags(repo, "stable-t-3-*"), "the good end is tagged")
    assert len(tags(repo)) == 1
    assert repo.show("app.py", "feature/t-3") == "good\n"


def test_what_cannot_be_committed_gets_no_tag_and_that_is_told(start: Start, repo: Repository) -> None:
    repo.hook("pre-commit", "echo no >&2; exit 1")
    machine = start(NEVER + "tag = true\n")
    machine.run("echo two > app.py", "--id", "t-1")
    why = until(lambda: machine.report().get("trouble"), "it is reported")
    assert why.startswith("the verified end of task t-1 has no tag: git commit in ")
    assert (tags(repo), repo.status(), repo.branch) == ([], " M app.py\n", "main")


def test_a_task_of_a_tree_in_the_middle_of_something_is_done_all_the_same(start: Start, repo: Repository) -> None:
    machine = start(NEVER + "task_branch = true\n")
    repo.write(".git/MERGE_HEAD", repo.head() + "\n")
    assert machine.run("git branch --show-current", "--id", "t-1") == "main\n"
    assert "no branch of its own: " in machine.torch("task", "t-1").stdout


def test_two_agents_of_one_repository_have_trees_of_their_own(start: Start, repo: Repository) -> None:
    policy = NEVER + "task_branch = true\nworktree = true\ntag = true\n"
    (repo.folder / "sub").mkdir()
    repo.write("sub/inner", "x\n")
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "--message", "sub")
    machine = start(policy, dev_1=("developer", repo.folder / "sub"), dev_2=("developer", repo.folder))
    script = "pwd; git branch --show-current; git rev-parse --show-prefix; echo $TORCH_AGENT_ID > who"
    for agent, task in (("dev-1", "a"), ("dev-2", "b")):
        place, *rest = machine.torch(
            "run", "--wait", "--agent", agent, "--id", task, "--check", f"grep -q {agent} who", script
        ).stdout.splitlines()
        assert place.startswith(str(machine.state / "worktrees" / task))
        assert rest == [f"feature/{task}", "sub/" if agent == "dev-1" else ""]
    until(lambda: len(tags(repo)) == 2, "both ends are tagged")
    assert (repo.branch, repo.status()) == ("main", "")
    assert repo.show("sub/who", "feature/a") == "dev-1\n"
    assert repo.show("who", "feature/b") == "dev-2\n"


def test_a_tasks_tree_goes_when_it_is_clean_and_left_and_stays_while_it_holds_work(
    start: Start, repo: Repository
) -> None:
    machine = start(NEVER + "worktree = true\ntag = true\n")
    machine.run("echo two > app.py", "--id", "done")
    until(lambda: tags(repo, "stable-done-*"), "it is tagged")
    place = machine.state / "worktrees" / "done"
    machine.looked()
    assert place.exists(), "the agent's shell is in it"
    machine.run("echo half > app.py; echo x > .env; exit 1", "--id", "failed", code=1)
    until(lambda: not place.exists(), "the agent has left it")
    machine.run("cd /", "--id", "away")
    machine.looked()
    left = machine.state / "worktrees" / "failed" / "repo"
    assert (left / "app.py").read_text() == "half\n"
    assert {tree["task"] for tree in machine.trees()} >= {None, "failed"}
    assert repo.show("app.py", "feature/done") == "two\n"
    subprocess.run(["git", "commit", "--quiet", "--all", "-m", "half"], cwd=left, check=True)
    machine.looked()
    assert (left / ".env").exists(), "what is left out of commits is work, too"
    (left / ".env").unlink()
    until(lambda: not left.exists(), "nothing would be lost any more")
    assert repo.show("app.py", "feature/failed") == "half\n"
    assert repo.git("worktree", "list", "--porcelain").count("worktree ") <= 2


def test_a_worker_that_is_killed_finds_the_tasks_tree_again(start: Start, repo: Repository) -> None:
    machine = start(NEVER + "worktree = true\ntag = true\n")
    gate = machine.folder / "gate"
    script = f"echo two > app.py; until [ -e {gate} ]; do sleep 0.05; done"
    machine.torch("run", "--agent", "dev-1", "--id", "t-1", "--check", "grep -q two app.py", script)
    written = machine.state / "worktrees" / "t-1" / "repo" / "app.py"
    until(lambda: written.exists() and written.read_text() == "two\n", "the task has begun")
    worker = machine.living("agent-dev-1")
    worker.kill()
    until(lambda: (now := machine.process("agent-dev-1")) and now != worker, "the worker was started again")
    gate.touch()
    [tag] = until(lambda: tags(repo, "stable-t-1-*"), "the verified end is tagged")
    assert repo.show("app.py", tag) == "two\n"


def test_a_policy_that_cannot_be_read_stops_no_task(start: Start, repo: Repository) -> None:
    machine = start("[roles.developer]\nenabled = true\ncomit_minutes = 3\n")
    assert machine.run("echo done", "--id", "t-1") == "done\n"
    assert "comit_minutes: is not a field that exists" in machine.torch("task", "t-1").stdout
    assert "git discipline: cannot use " in machine.output.read_text()


def test_no_branch_is_changed_under_another_agents_task(start: Start, repo: Repository) -> None:
    policy = NEVER + "task_branch = true\n"
    machine = start(policy, dev_1=("developer", repo.folder), dev_2=("developer", repo.folder))
    gate = machine.folder / "gate"
    script = f"until [ -e {gate} ]; do sleep 0.05; done; git branch --show-current"
    machine.torch("run", "--agent", "dev-2", "--id", "other", script)
    until(lambda: repo.branch == "feature/other", "dev-2 has begun")
    assert machine.run("git branch --show-current", "--id", "t-1") == "feature/other\n"
    assert "dev-2 works in " in machine.torch("task", "t-1").stdout
    gate.touch()
    until(lambda: "feature/other" in machine.torch("task", "other").stdout, "dev-2 is done")
    assert repo.branch == "feature/other"


def test_a_coding_agents_program_is_started_in_the_tasks_tree(node: Node, torch: Torch) -> None:
    repo = Repository(node.work)
    fake = FakeKind(node, scenario=Scenario(Turn((Say("Done."),))))
    (fake.folder / "git.toml").write_text(NEVER + "worktree = true\ntag = true\n")
    fake.worker("coder-1", **ALONE)
    task = torch.enqueue("write it", agent="coder-1", check="echo made > made.txt")
    assert task.result(timeout=60).succeeded
    place = node.state / "worktrees" / task.id / "work"
    assert f"folder: {place}" in fake.prompts()[-1].splitlines()[-1]
    assert [record["cwd"] for record in fake.cli.records("started")] == [str(node.work), str(place)]
    [tag] = until(lambda: tags(repo), "the verified end is tagged")
    assert repo.files(tag) == {"app.py", "made.txt"}
    assert repo.branch == "main"
