"""``torch-tasks up`` and ``down``: one machine's processes, started whole, kept alive, ended without a trace."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import pytest

Value = TypeVar("Value")

TORCH_TASKS = str(Path(sys.executable).with_name("torch-tasks"))
PACE = {
    "TORCH_HEARTBEAT_SECONDS": "0.5",
    "TORCH_OFFLINE_SECONDS": "5",
    "TORCH_INTERRUPT_SECONDS": "1",
    "TORCH_RESTART_BACKOFF_SECONDS": "0.1",
    "TORCH_BROKER_CONNECT_SECONDS": "5",
    "TORCH_FLOWER_PORT": "0",
}
"""Quicker than a fleet's own pace, and slow enough for a busy machine."""
ONE_AGENT = ("--agent", "dev-1:developer:python", "--no-flower")


def until(condition: Callable[[], Value | None], what: str, seconds: float = 30.0) -> Value:
    """The first true value of the condition, or a failed test."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return value


class Machine:
    """A state folder of its own, and whatever runs there."""

    def __init__(self, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # short: it holds tmux sockets
        self.state = self.folder / "state"
        self.work = self.folder / "work"
        self.work.mkdir()
        users = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH_", "TMUX"))}
        none = {"TORCH_CONFIG_DIR": str(self.folder / "config"), "TORCH_STATE_DIR": str(self.state)}
        self.env = {**users, **none, **PACE, **environment}

    def torch(self, *words: str, code: int | None = 0, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``torch-tasks`` to its end, which must be this exit code."""
        ended = subprocess.run(
            [TORCH_TASKS, *words],
            input=stdin.encode(),
            capture_output=True,
            check=False,
            cwd=self.work,
            env={**self.env, **env},
            timeout=45,
        )
        # Decoded here: subprocess would turn \r\n into \n.
        done = subprocess.CompletedProcess(words, ended.returncode, ended.stdout.decode(), ended.stderr.decode())
        assert code in (None, done.returncode), f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run ``torch-tasks`` beside the test; its output goes to :attr:`output`."""
        with self.output.open("a") as output:
            return subprocess.Popen(
                [TORCH_TASKS, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                cwd=self.work,
                env=self.env,
                start_new_session=True,
            )

    @property
    def output(self) -> Path:
        """What the commands say that were started beside the test."""
        return self.folder / "output"

    def process(self, name: str) -> psutil.Process | None:
        """The living process that is recorded under this name."""
        try:
            process = psutil.Process(json.loads((self.state / "run" / f"{name}.json").read_bytes())["pid"])
            return process if process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def living(self, name: str) -> psutil.Process:
        """The process of this name, which must be there."""
        process = self.process(name)
        assert process, f"{name} does not run"
        return process

    def log(self, name: str) -> str:
        """What a process of the stack said."""
        return (self.state / "logs" / f"{name}.log").read_text()

    def pane(self, agent_id: str) -> tuple[str, int]:
        """The pane that the agent's journal names, and the process that tmux runs in it."""
        pane_id = json.loads((self.state / "agents" / agent_id / "journal.json").read_bytes())["pane"]
        return pane_id, int(self.tmux(agent_id, "display-message", "-p", "-t", pane_id, "#{pane_pid}"))

    def tmux(self, agent_id: str, *words: str) -> str:
        """What tmux answers to a command for the agent."""
        argv = ["tmux", "-S", str(self.state / "agents" / agent_id / "tmux"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout

    def survivors(self) -> list[psutil.Process]:
        """Every living process whose command line or environment names this machine's folder."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return any(str(self.folder) in word for word in [*process.cmdline(), *process.environ().values()])
        except psutil.Error:
            return False

    def is_clean(self) -> bool:
        """Neither a process nor a terminal's socket is left."""
        return not self.survivors() and not list(self.folder.rglob("tmux"))

    def close(self) -> None:
        """Kill whatever is left, also what is being started again meanwhile."""
        until(self._killed_all, f"nothing of {self.folder} is left")
        shutil.rmtree(self.folder)

    def _killed_all(self) -> bool:
        survivors = self.survivors()
        for process in survivors:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return not survivors


@pytest.fixture
def new_machine() -> Iterator[Callable[..., Machine]]:
    """Makes machines that are ended with the test."""
    machines: list[Machine] = []

    def make(**environment: str) -> Machine:
        machines.append(Machine(**environment))
        return machines[-1]

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture
def machine(new_machine: Callable[..., Machine]) -> Machine:
    """A machine on which nothing runs yet."""
    return new_machine()


# ── ended without a trace ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_up_in_the_foreground_leaves_nothing_behind(machine: Machine, ending: signal.Signals) -> None:
    up = machine.start("up", *ONE_AGENT)
    until(lambda: "Ctrl-C ends it all." in machine.output.read_text(), "the stack is up", 60)
    machine.torch("run", "sleep 600")
    until(lambda: any("sleep" in p.name() for p in machine.survivors()), "the agent works")
    up.send_signal(ending)
    assert up.wait(45) == 0
    assert machine.is_clean()
    assert "Traceback" not in machine.output.read_text()


def test_down_ends_everything_and_a_second_one_says_that_nothing_ran(machine: Machine) -> None:
    machine.torch("up", "--detach", *ONE_AGENT)
    assert machine.torch("down").stdout == "ended: up, beat, node, broker\n"
    assert machine.is_clean()
    assert machine.torch("down").stdout == f"nothing was running in {machine.state}\n"


def test_down_ends_everything_when_the_supervisor_was_killed(machine: Machine) -> None:
    machine.torch("up", "--detach", *ONE_AGENT)
    machine.living("up").kill()
    until(lambda: machine.process("up") is None, "the supervisor is dead")
    assert machine.torch("down").stdout == "ended: beat, node, broker\n"
    assert machine.is_clean()


def test_the_demo_shows_its_tasks_and_leaves_nothing(machine: Machine) -> None:
    scratch = machine.folder / "scratch"
    scratch.mkdir()
    said = machine.torch("demo", TMPDIR=str(scratch)).stdout
    assert "everything has ended, nothing is left running" in said
    assert len(re.findall(r"^[0-9a-f]{8} .* (?:succeeded|failed) ", said, re.MULTILINE)) == 6
    assert machine.is_clean()
    assert list(scratch.iterdir()) == []


# ── twice ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Twice(NamedTuple):
    """What a second ``up`` came to while the first one's stack ran."""

    machine: Machine
    supervisor: int
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def twice() -> Iterator[Twice]:
    """A machine on which ``up`` was called twice."""
    machine = Machine()
    machine.torch("up", "--detach", *ONE_AGENT)
    supervisor = machine.living("up").pid
    yield Twice(machine, supervisor, machine.torch("up", "--detach", *ONE_AGENT, code=None))
    machine.close()


def test_a_second_up_is_refused_and_names_the_first(twice: Twice) -> None:
    assert twice.second.returncode == 1
    assert twice.second.stdout == ""
    assert f"this machine's stack is up already (process {twice.supervisor}," in twice.second.stderr
    assert "'torch-tasks down' ends it" in twice.second.stderr


def test_a_refused_up_leaves_the_first_alone(twice: Twice) -> None:
    assert twice.machine.living("up").pid == twice.supervisor
    assert twice.machine.torch("run", "echo hi", "--wait").stdout == "hi\n"


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_folder_that_cannot_be_made_is_named(machine: Machine) -> None:
    done = machine.torch("up", "--detach", *ONE_AGENT, code=1, TORCH_STATE_DIR="/proc/nowhere")
    assert done.stderr.startswith("Error: cannot write /proc/nowhere")
    assert "set TORCH_STATE_DIR to one that is" in done.stderr


@pytest.mark.parametrize("command", ["up --detach --no-flower", "down", "doctor", "tasks"])
def test_a_state_folder_that_is_a_file_is_named(machine: Machine, command: str) -> None:
    machine.state.write_text("a file, not a folder")
    done = machine.torch(*command.split(), code=None)
    machine.state.unlink()
    assert done.returncode
    assert str(machine.folder / "state") in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_an_agent_that_cannot_be_is_refused_before_anything_starts(machine: Machine) -> None:
    done = machine.torch("up", "--detach", "--agent", "dev 1:developer", code=2)
    assert "id: 'dev 1' holds a space" in done.stderr
    assert machine.is_clean()


# ── beside each other ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_chosen_broker_is_used_and_none_is_started_or_ended(stack: Kept, new_machine: Callable[..., Machine]) -> None:
    url = json.loads((stack.machine.state / "broker.json").read_bytes())["url"]
    guest = new_machine(TORCH_BROKER_URL=url, TORCH_NODE="guest")
    guest.torch("up", "--detach", "--agent", "guest-1:guest", "--no-flower", "--no-beat")
    assert guest.process("broker") is None
    assert not list(guest.state.rglob("kept.json"))
    assert stack.machine.torch("run", "--role", "guest", "--wait", "echo hi").stdout == "hi\n"
    assert guest.torch("down").stdout == "ended: up, node\n"
    assert stack.machine.torch("run", "--wait", "echo still there").stdout == "still there\n"


def test_two_machines_side_by_side_know_nothing_of_each_other(stack: Kept, machine: Machine) -> None:
    machine.torch("up", "--detach", "--agent", "other-1:other", "--no-flower")
    agents = [info["agent_id"] for info in json.loads(machine.torch("agents", "--json").stdout)]
    assert agents == ["other-1"]
    assert machine.torch("run", "--wait", "echo $TORCH_AGENT_ID").stdout == "other-1\n"
    machine.torch("down")
    assert machine.is_clean()
    assert stack.machine.torch("run", "--wait", "echo $TORCH_AGENT_ID").stdout == "dev-1\n"


def test_an_agent_of_the_file_starts_in_its_workdir(machine: Machine) -> None:
    place = machine.folder / "place"
    config = machine.folder / "config" / "torch.toml"
    for folder in (place, config.parent):
        folder.mkdir()
    config.write_text(f'[[agents]]\nid = "dev-1"\nrole = "developer"\nworkdir = "{place}"\n')
    machine.torch("up", "--detach", "--no-flower", "--no-beat")
    assert machine.torch("run", "--wait", "pwd").stdout == f"{place}\n"


# ── kept, adopted, restarted ─────────────────────────────────────────────────────────────────────────────────────


class Kept(NamedTuple):
    """A stack that was ended with its agents kept, and is up again."""

    machine: Machine
    first_up: str
    second_up: str
    first_pane: tuple[str, int]
    pane_between: tuple[str, int]
    left_between: list[str]


@pytest.fixture(scope="module")
def stack() -> Iterator[Kept]:
    """The stack of this module, Flower included."""
    machine = Machine()
    words = ("up", "--detach", "--agent", "dev-1:developer:python")
    first_up = machine.torch(*words).stdout
    machine.torch("run", "--wait", "MEMORY=kept")
    first_pane = machine.pane("dev-1")
    machine.torch("down", "--keep-agents")
    between = machine.pane("dev-1"), [process.name() for process in machine.survivors()]
    yield Kept(machine, first_up, machine.torch(*words).stdout, first_pane, *between)
    machine.close()


def test_kept_agents_are_adopted_by_the_next_up(stack: Kept) -> None:
    assert stack.pane_between == stack.first_pane == stack.machine.pane("dev-1")
    assert stack.machine.torch("run", "--wait", "echo $MEMORY").stdout == "kept\n"


def test_with_its_agents_kept_a_machine_has_nothing_but_their_panes(stack: Kept) -> None:
    assert {name.split(":")[0] for name in stack.left_between} <= {"tmux", "bash", "sh", "cat"}


def test_what_was_killed_is_started_again_and_works(stack: Kept) -> None:
    machine = stack.machine
    killed = {name: machine.living(name) for name in ("beat", "node", "broker")}
    for process in killed.values():
        process.kill()

    def are_new() -> bool:
        return all((now := machine.process(name)) and now != process for name, process in killed.items())

    until(are_new, "beat, node worker and broker run again")
    done = machine.torch("run", "--wait", "--wait-timeout", "45", "echo $TORCH_AGENT_ID")
    assert done.stdout == "dev-1\n"


# ── Flower ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Flower:
    """The stack's Flower, as a browser sees it."""

    def __init__(self, machine: Machine) -> None:
        self._url = json.loads((machine.state / "run" / "flower.json").read_bytes())["facts"]["url"]
        self.file = machine.state / "flower.password"
        self.password = self.file.read_text().strip()

    def get(self, path: str, password: str | None = None) -> tuple[int, bytes]:
        """Status and body of a page."""
        token = base64.b64encode(f"torch:{password}".encode()).decode()
        request = urllib.request.Request(self._url + path, headers={"Authorization": f"Basic {token}"})
        if password is None:
            request.remove_header("Authorization")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def api(self, path: str) -> Any:
        """What the API answers to whoever knows the password."""
        status, body = self.get(path, self.password)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture
def flower(stack: Kept) -> Flower:
    return Flower(stack.machine)


@pytest.mark.parametrize("path", ["/workers", "/api/workers", "/broker", "/tasks", "/api/tasks", "/api/queues/length"])
def test_flower_opens_its_pages_to_whoever_knows_the_password(flower: Flower, path: str) -> None:
    assert flower.get(path, flower.password)[0] == 200
    assert flower.get(path, "wrong")[0] == 401
    assert flower.get(path)[0] == 401


def test_flowers_password_is_shown_once_and_kept_for_its_owner_alone(stack: Kept, flower: Flower) -> None:
    assert f"password {flower.password} (shown this once" in stack.first_up
    assert flower.password not in stack.second_up
    assert f"password in {flower.file}" in stack.second_up
    assert flower.file.stat().st_mode & 0o777 == 0o600


def test_flowers_password_is_in_no_command_line_and_no_log(stack: Kept, flower: Flower) -> None:
    lines = [line for p in psutil.process_iter(["cmdline"]) for line in p.info["cmdline"] or ()]
    assert not [line for line in lines if flower.password in line]
    assert not [log for log in stack.machine.state.glob("logs/*") if flower.password in log.read_text()]


def test_flower_shows_what_a_task_was_asked(stack: Kept, flower: Flower) -> None:
    stack.machine.torch("run", "--wait", "--id", "seen-in-flower", "echo 'for flower'")
    shown = until(lambda: flower.api("/api/tasks?limit=100").get("seen-in-flower"), "Flower knows the task")
    assert "echo 'for flower'" in shown["args"]
    assert "torch.any.any" in shown["kwargs"]


def test_flower_counts_what_waits(stack: Kept, flower: Flower) -> None:
    flower.api("/api/workers?refresh=true")
    queues = {queue["name"]: queue["messages"] for queue in flower.api("/api/queues/length")["active_queues"]}
    assert "torch.system" in queues
    assert all(messages == 0 for messages in queues.values())
