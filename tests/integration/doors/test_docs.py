"""Every command and every piece of Python in the documents runs as it is written."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_kind import kind_toml
from fakes.cli.client import FakeCli
from git_parts import Repository
from machine import short_folder
from servers import Server

from torch_tasks.cli import COMMANDS as GROUPS
from torch_tasks.machine.broker import administrators_address, start_broker
from torch_tasks.machine.stack import Stack
from torch_tasks.settings import Settings

REPO = Path(__file__).resolve().parents[3]
README = (REPO / "README.md").read_text()
PAGES = {page.name: page.read_text() for page in (REPO / "docs").glob("*.md")}
PYTHON = PAGES["python.md"]
OPERATING = PAGES["operating.md"]
DELIVERY = PAGES["delivery.md"]
MESSAGES = PAGES["messages.md"]
TRACES = PAGES["traces.md"]
CONTROL = PAGES["control.md"]
NODES = PAGES["nodes.md"]
GIT = PAGES["git.md"]
COLLABORATION = PAGES["collaboration.md"]
STACK = PAGES["stack.md"]
CHECKINS = PAGES["checkins.md"]
COMMANDS = PAGES["commands.md"]
NIGHT = PAGES["night.md"]
OLD_TOOLS = PAGES["old-tools.md"]
POLICY = PAGES["policy.md"]
REGISTRY = PAGES["registry.md"]
AGENTS = PAGES["agents.md"]
SERVER = PAGES["server.md"]
SECURITY = PAGES["security.md"]
REPORT = PAGES["report.md"]
BACKUP = PAGES["backup.md"]
DEPLOY = PAGES["deploy.md"]
UPGRADING = PAGES["upgrading.md"]
NOT_RUN = {"mcp.md", "broker.md"}
"""Run elsewhere: by tests/real_agents, and where brokers move."""
SERVER_IN_DOCS = "127.0.0.1:5556"
BROKER_IN_DOCS = "redis://127.0.0.1:6379/0"

QUIET = {"TORCH_FLOWER_PORT": "0", "TORCH_SERVE": "false"}
"""Each page starts only what it is about, on ports that are free."""

Environment = dict[str, str]


def blocks(language: str, document: str = README) -> list[str]:
    """A document's code in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)


def in_order(document: str) -> list[tuple[str, str]]:
    """A document's commands and Python, as they follow each other, each with its language."""
    return re.findall(r"^```(bash|python)\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)


@pytest.fixture
def environment() -> Iterator[Environment]:
    """A new user's environment, with the commands on PATH; everything that was started in it has ended afterwards."""
    home = short_folder()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_")}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    yield {**kept, "PATH": path, "HOME": str(home), "TORCH_STATE_DIR": str(home / "state"), **QUIET}
    Stack(Settings(state_dir=home / "state")).down(keep_agents=False)
    shutil.rmtree(home)


@pytest.fixture
def run(environment: Environment) -> Callable[..., str]:
    """Run a command in the new user's home and return what it printed; a failure is shown whole."""

    def run(*command: str, typed: str = "", **extra: str) -> str:
        done = subprocess.run(
            command,
            env={**environment, **extra},
            cwd=environment["HOME"],
            input=typed,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def test_a_fleet_of_shells_works_as_the_readme_says(run: Callable[..., str]) -> None:
    start, end, _ = blocks("bash")
    said = run("bash", "-ec", start)
    assert "hello from developer-1" in said
    assert "Flower" in said
    assert "FAIL" not in said
    [python] = blocks("python")
    assert run(sys.executable, "-c", python).startswith("succeeded (Evidence(")
    assert "ended: up" in run("bash", "-ec", end)


def test_a_fleet_of_coding_agents_works_as_the_readme_says(run: Callable[..., str], environment: Environment) -> None:
    home = Path(environment["HOME"])
    cli = FakeCli(home / "bin", name="claude")
    kinds = home / ".config" / "torch" / "agents"
    kinds.mkdir(parents=True)
    (kinds / "claude.toml").write_text(kind_toml([str(cli.program), "--settings", "{hooks}"], hooks=True))
    a_shop(home)
    said = run("bash", "-ec", blocks("bash")[2], PATH=f"{cli.folder}:{environment['PATH']}", typed="\n\n\n")
    assert "wrote " in said
    assert "agent   dev-2: developer (night), ready" in said
    assert "1 succeeded" in said
    assert "check passed" in said


def test_the_python_examples_work_as_they_are_written(run: Callable[..., str]) -> None:
    run("torch-tasks", "up", "--detach", "--no-flower", "--agent", "dev:developer:python", "--agent", "qa-1:qa")
    first, many, registry, messages, checkins, canvas = blocks("python", PYTHON)
    said = run(sys.executable, "-c", first)
    assert "succeeded 0" in said
    assert "['dev']" in said
    assert run(sys.executable, "-c", registry).splitlines()[1:] == ["dev assigned", "healthy"]
    assert run(sys.executable, "-c", messages).splitlines()[1:] == ["qa-1 is here"]
    assert run(sys.executable, "-c", checkins).splitlines()[-1] == "echo look at the build"
    [more] = re.findall(r"^```python\n(.*?)^```$", MESSAGES, re.DOTALL | re.MULTILINE)
    assert run(sys.executable, "-c", more) == "it is green\n"
    assert run(sys.executable, "-c", many).split() == ["tested"]
    said = run(sys.executable, "-c", canvas)
    assert '"answer": "42\\n"' in said
    assert said.splitlines()[-1] == "succeeded"


def test_who_may_do_what_is_shown_as_it_is_written(run: Callable[..., str], environment: Environment) -> None:
    folder = Path(environment["HOME"]) / ".config" / "torch"
    folder.mkdir(parents=True)
    [rules] = blocks("toml", POLICY)
    (folder / "policy.toml").write_text(rules)
    run("torch-tasks", "up", "--detach", "--no-flower", "--agent", "dev-1:developer")
    [commands] = blocks("bash", POLICY)
    said = run("bash", "-ec", commands)
    assert "release-manager" in said.splitlines()[0]
    assert f'schedule: [rights.agent] schedule = "any" ({folder}/policy.toml, line 2)' in said
    assert "dev-1 (agent, developer) may not do task.answer" in said
    assert "it may not: exit code 5" in said
    assert "dev-1 (agent, developer) may, for its own, do task.cancel" in said
    assert "viewer (program, viewer) may not do task.enqueue" in said
    assert "neither may this one" in said


def test_keys_are_made_rotated_and_revoked_as_it_is_written(run: Callable[..., str]) -> None:
    [commands] = blocks("bash", SECURITY)
    said = run("bash", "-ec", commands)
    assert "ci-keys: program ci, serial" in said
    assert re.search(r"the root (\w{16}) follows (?!\1)\w{16}", said)
    assert said.splitlines()[-1].startswith("revoked: program ci, serial")


def test_a_fleet_is_backed_up_and_restored_as_it_is_written(run: Callable[..., str], environment: Environment) -> None:
    [commands] = blocks("bash", BACKUP)
    try:
        said = run("bash", "-ec", commands)
    finally:
        Stack(Settings(state_dir=Path(environment["HOME"]) / "elsewhere")).down(keep_agents=False)
    assert "whole, signed by node" in said
    assert "0 tasks are open and 1 had ended" in said
    restored = said.partition("restored fleet.backup")[2]
    assert "succeeded" in restored
    assert "it has ended" in restored
    assert "0 tasks enqueued here came after the backup" in restored


def test_agents_of_several_machines_start_as_it_is_written(run: Callable[..., str], environment: Environment) -> None:
    home = Settings(state_dir=Path(environment["TORCH_STATE_DIR"]) / "b")
    start_broker(home)
    url = administrators_address(home).url.get_secret_value()
    several = blocks("bash", OPERATING)[0].replace(BROKER_IN_DOCS, url)
    assert url in several
    wait = """
    until [ "$(torch-tasks agents --online | grep -c ready)" = 2 ]; do sleep 0.2; done
    torch-tasks run --agent developer-2 --wait 'echo two'; torch-tasks run --agent developer-3 --wait 'echo three'
    kill $(jobs -p); wait
    """
    try:
        assert {"two", "three"} <= set(run("timeout", "60", "bash", "-c", several + wait).splitlines())
    finally:
        Stack(Settings(state_dir=Path(environment["TORCH_STATE_DIR"]) / "b")).down(keep_agents=False)


def test_dead_letters_are_handled_and_a_task_is_traced_as_it_is_written(run: Callable[..., str]) -> None:
    said = run("bash", "-ec", "\n".join(blocks("bash", DELIVERY) + blocks("bash", TRACES)))
    assert "agent crashed" in said
    assert "task replay-me queued again" in said
    drawn = said[said.index("traced-1: echo hello succeeded") :]
    assert re.findall(r"^ {4}(\w+) ", drawn, re.MULTILINE) == ["preparation", "turn", "check"]


def test_a_stack_begins_and_ends_as_it_is_written(run: Callable[..., str]) -> None:
    said = run("bash", "-ec", "\n".join(blocks("bash", STACK)))
    assert "nothing runs yet, and doctor says so" in said
    assert "ready\n" in said
    assert "refused: this stack is up already" in said
    assert "ended: up, beat, node, pane of dev-1, pane of qa-1, broker" in said
    assert "nothing was running in" in said


def test_a_fleet_moves_from_a_laptop_to_servers_as_it_is_written(run: Callable[..., str]) -> None:
    said = run("bash", "-ec", "\n".join(blocks("bash", DEPLOY)))
    assert "on a laptop\n" in said
    next_steps = said[said.index("Next:\n") :].splitlines()[1:4]
    assert "made fleet/secrets/broker-admin" in said
    assert "wrote cluster/base/nodes.yaml" in said
    [written] = [block for block in blocks("text", DEPLOY) if "install -D" in block]
    assert [step.strip() for step in next_steps] == written.splitlines()


def test_a_machine_is_upgraded_as_it_is_written(run: Callable[..., str]) -> None:
    [commands] = blocks("bash", UPGRADING)
    said = run("bash", "-ec", commands)
    assert "ended: up, beat, node, broker\n" in said
    assert re.search(r"^ok +releases: +Torch \S+ \(format \d+\) on \S+$", said, re.MULTILINE)


def test_agents_work_together_as_it_is_written(run: Callable[..., str]) -> None:
    said = run("bash", "-ec", "\n".join(blocks("bash", COLLABORATION)))
    assert "task long-1 goes to dev-2" in said
    assert re.search(r"running dev-1 on .*: operator hands it over to dev-2: the parser is done", said)
    assert re.search(r"succeeded dev-2 on ", said)
    assert said.count("the tests need a broker on port 6379") == 2
    assert "and who has it was said" in said
    assert re.search(r"^dev-\d: accept: dev-\d is here$", said, re.MULTILINE)
    assert "BRINGS" in said


def test_agents_are_held_back_as_it_is_written(run: Callable[..., str]) -> None:
    said = run("bash", "-ec", "\n".join(blocks("bash", CONTROL)))
    assert re.search(r"^waits: +dev-1 is paused by operator: its branch is being reviewed$", said, re.MULTILINE)
    assert re.search(r"^confirmed by dev-1$", said, re.MULTILINE)
    assert re.search(r"^confirmed by qa-1$", said, re.MULTILINE)
    assert re.search(
        r"^FAIL +stopped: +no task begins on this machine, stopped by operator: wrong branch", said, re.MULTILINE
    )
    assert "it says that nothing begins here" in said
    assert run("torch-tasks", "run", "--agent", "dev-1", "--wait", "echo again").endswith("again\n")
    assert "at last" in run("torch-tasks", "task", "later-1")
    said = run("bash", "-ec", "\n".join([*blocks("bash", REPORT), "cat report.html"]))
    assert re.search(r"^The fleet from \S+ to \S+: ", said, re.MULTILINE)
    assert "| node | up | declared for |" in said
    assert "<svg" in said


def test_agents_are_spawned_and_retired_as_it_is_written(run: Callable[..., str]) -> None:
    said = run("bash", "-ec", "\n".join(blocks("bash", NODES)[:3]))
    assert "done by developer-1" in said
    assert "developer-1 has retired on" in said
    assert re.search(r"^boss-1 +boss +shell +running", said, re.MULTILINE)
    assert "refused: the node is drained" in said


UNDER_LOAD = """
import os, subprocess, time
from torch_tasks import Torch
from torch_tasks.errors import BadSignature
torch = Torch()
torch.spawn("developer", node="machine-a")
tasks = [torch.enqueue(f"sleep 0.2; echo done {n}", role="developer", max_retries=3) for n in range(16)]
deadline = time.monotonic() + 60
while sum(task.record().state.ended for task in tasks) < 4 and time.monotonic() < deadline:
    time.sleep(0.05)
print(subprocess.run(["bash", "-ec", os.environ["REVOKE"]], check=True, capture_output=True, text=True).stdout)
done, unbelieved = [], []
for number, task in enumerate(tasks):
    try:
        assert task.result(timeout=60).answer == f"done {number}\\n"
        done.append(number)
    except BadSignature:  # the machine that saw it end is not believed any more
        assert task.record().agent == "dev-2"
        unbelieved.append(number)
assert done and sorted(done + unbelieved) == list(range(16))
"""


@pytest.mark.timeout(400)
def test_a_further_machine_joins_as_it_is_written(run: Callable[..., str], environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    broker, there = Server(keeps_users=True, port=port), Path(environment["HOME"]) / "there"
    page = NODES.replace("PASSWORD", "s3cret").replace("HOST:6379", f"127.0.0.1:{port}")
    begin, join, revoke = blocks("bash", page)[-3:]
    address = f"redis://127.0.0.1:{port}/0"
    try:
        assert "torch-node-machine-a" in run("bash", "-ec", begin, TORCH_NODE="machine-a")
        said = run("bash", "-ec", join, TORCH_STATE_DIR=str(there))
        assert "machine-b works\n" in said
        connected = {one["user"] for one in broker.client.client_list()}
        assert connected >= {f"torch-{role}-{node}" for role in ("node", "beat") for node in ("machine-a", "machine-b")}
        assert [one for one in connected if one.startswith("torch-join")] == []
        kept = [file for file in there.rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]
        assert kept == []  # the administrator's password
        said = run(sys.executable, "-c", UNDER_LOAD, TORCH_NODE="machine-a", TORCH_BROKER_URL=address, REVOKE=revoke)
        assert re.search(r"^revoked: node machine-b, serial \w+$", said, re.MULTILINE)
        assert "its users on the broker are ended, with their connections: torch-node-machine-b, torch-beat-" in said
        assert [name for name in broker.client.acl_users() if "machine-b" in name] == []
    finally:
        Stack(Settings(state_dir=there)).down(keep_agents=False)
        Stack(Settings(state_dir=Path(environment["TORCH_STATE_DIR"]))).down(keep_agents=False)
        broker.end()


def test_git_discipline_works_as_it_is_written(run: Callable[..., str]) -> None:
    said = run("bash", "-ec", "\n".join(blocks("bash", GIT)))
    assert re.search(r"^stable-report-1-\d{8}-\d{6}$", said, re.MULTILINE)
    assert re.search(
        r"^[0-9a-f]+ \(HEAD -> feature/report-1, tag: stable-.*\) Progress: date > report.txt$", said, re.MULTILINE
    )
    assert re.search(r"^dev-1 +developer +feature/report-1 ", said, re.MULTILINE)


def test_check_ins_come_up_as_it_is_written(run: Callable[..., str]) -> None:
    run("torch-tasks", "up", "--detach", "--no-flower", "--agent", "dev:developer")
    said = run("bash", "-ec", "\n".join(blocks("bash", CHECKINS)))
    assert "once, " in said
    assert "cron 30 8 * * 1" in said
    [python] = blocks("python", CHECKINS)
    said = run(sys.executable, "-c", python)
    assert said.splitlines()[0].endswith(" () 6")
    assert said.splitlines()[1].startswith("every 1 h [Fire(")


def a_shop(home: Path) -> Repository:
    """A user's repository, with a test that passes."""
    shop = Repository(home / "src" / "shop")
    shop.write("Makefile", "test:\n\ttrue\n")
    shop.git("add", "Makefile")
    shop.git("commit", "--quiet", "--message", "Test")
    return shop


def test_a_night_goes_as_it_is_written(run: Callable[..., str], environment: Environment) -> None:
    home = Path(environment["HOME"])
    cli = FakeCli(home / "bin", name="claude")
    config = home / ".config" / "torch"
    (config / "agents").mkdir(parents=True)
    (config / "agents" / "claude.toml").write_text(kind_toml([str(cli.program), "--settings", "{hooks}"], hooks=True))
    folder = str(a_shop(home).folder)
    for name, text in zip(("agents/night.toml", "torch.toml", "git.toml"), blocks("toml", NIGHT), strict=True):
        (config / name).write_text(text.replace("/srv/shop", folder).replace("curl ", "true "))
    (home / "tasks.txt").write_text("Write a page about the shop.\nWrite another one.\n")
    evening, morning = (block.replace("/srv/shop", folder) for block in blocks("bash", NIGHT))
    path = f"{cli.folder}:{environment['PATH']}"
    assert "agent   dev-2: developer (night), ready" in run("bash", "-ec", evening, PATH=path)
    assert "Fix the typo in the README." in run("bash", "-ec", morning, PATH=path)


def test_the_old_tools_work_as_it_is_written(run: Callable[..., str], environment: Environment) -> None:
    environment["TMUX_TMPDIR"] = environment["HOME"]
    environment.pop("TMUX", None)
    interpreters = {"bash": ("bash", "-ec"), "python": (sys.executable, "-c")}
    try:
        said = "".join(run(*interpreters[language], code) for language, code in in_order(OLD_TOOLS))
    finally:
        run("tmux", "kill-server")
    assert said.count("Message sent to agentic-seek:") == 2
    assert "go through the open reviews" in said
    assert "once more" in said


def test_the_registry_is_asked_as_it_is_written(run: Callable[..., str]) -> None:
    run("torch-tasks", "up", "--detach", "--no-flower", "--agent", "dev:developer:python,git")
    asked, assigned = blocks("python", REGISTRY)
    run(sys.executable, "-c", asked)
    assert " dev " in run(sys.executable, "-c", assigned)
    [fresh] = blocks("python", AGENTS)
    assert run(sys.executable, "-c", f"{fresh}\nprint(review.id)")


def test_a_fleet_is_reached_by_http_as_it_is_written(run: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    own = {"TORCH_SERVE": "true", "TORCH_SERVER_PORT": port}
    page = SERVER.replace(SERVER_IN_DOCS, f"127.0.0.1:{port}")
    begin, by_curl, from_laptop, end = blocks("bash", page)
    [python] = blocks("python", page)
    assert f"server  http://127.0.0.1:{port}" in run("bash", "-ec", begin, **own)
    said = run("bash", "-ec", by_curl, **own)
    assert '"answer":"hello from curl\\n"' in said
    assert '"error":"TaskNotFound"' in said
    assert "event: begin" in said
    assert '{"ready":true,"reasons":[]}' in said
    assert run("bash", "-ec", from_laptop, **own) == "through the server\n"
    assert run(sys.executable, "-c", python, **own) == "from Python\n"
    said = run("bash", "-ec", end, **own)
    assert "laptop  operator" in said
    assert "revoked laptop" in said
    assert "refused with exit code 5" in said
    assert f"http://127.0.0.1:{port}/login/link" in said
    assert "ended: up, server, beat, node" in said


def test_no_page_has_code_that_no_test_runs() -> None:
    with_code = {name for name, page in PAGES.items() if in_order(page)} | {
        name for name, page in PAGES.items() if re.search("^```(?!bash|python|toml|text|json|$)", page, re.MULTILINE)
    }
    names = {name: page for name, page in globals().items() if isinstance(page, str)}
    run_here = {page for page in PAGES if any(PAGES[page] == text for text in names.values())}
    assert with_code - run_here == NOT_RUN


def test_every_make_target_that_a_page_names_exists() -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join([README, *PAGES.values()]), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "bench-field", "bench-page"} <= named <= targets


def test_completion_is_installed_as_it_is_written(run: Callable[..., str], environment: Environment) -> None:
    (block,) = blocks("bash", COMMANDS)
    run("bash", "-ec", block)
    assert "torch-tasks completion" in (Path(environment["HOME"]) / ".bashrc").read_text()


def test_every_command_that_a_page_names_exists() -> None:
    pages = "\n".join([README, *PAGES.values()])
    named = set(re.findall(r"(?:^|`|\$\()torch-tasks ([a-z][a-z-]*)", pages, re.MULTILINE))
    assert {"up", "done", "spawn"} <= named
    assert named - {name for group in GROUPS.values() for name in group} == set()


def test_every_link_leads_to_a_file() -> None:
    for folder, pages in ((REPO, [README]), (REPO / "docs", PAGES.values())):
        for target in re.findall(r"\]\(([^)#:]+)\)", "\n".join(pages)):
            assert (folder / target).exists(), target
    assert {f"docs/{name}" for name in PAGES} <= set(re.findall(r"\]\(([^)]+)\)", README))
