"""``torch-tasks up`` and ``down``: one machine's processes, started whole, kept alive, ended without a trace."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psutil
import pytest
from machine import Machine
from waiting import until

from torch_tasks.machine.broker import administrators_address
from torch_tasks.settings import Settings

pytestmark = pytest.mark.timeout(300)
"""Whole stacks begin and end in each test, and on a busy machine each of their processes takes its time."""

ONE_AGENT = ("--agent", "dev-1:developer:python", "--no-flower")


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
    until(lambda: "Ctrl-C stops everything." in machine.output.read_text(), "the stack is up", 60)
    machine.torch("run", "sleep 600")
    until(lambda: any("sleep" in p.name() for p in machine.survivors()), "the agent works")
    up.send_signal(ending)
    assert up.wait(45) == 0
    assert machine.is_clean()
    assert "Traceback" not in machine.output.read_text()


def test_down_ends_everything_and_a_second_one_says_that_nothing_ran(machine: Machine) -> None:
    machine.torch("up", "--detach", *ONE_AGENT)
    assert machine.torch("down").stdout == "ended: up, beat, node, pane of dev-1, broker\n"
    assert machine.is_clean()
    assert machine.torch("down").stdout == f"nothing was running in {machine.state}\n"


def test_down_ends_everything_when_the_supervisor_was_killed(machine: Machine) -> None:
    machine.torch("up", "--detach", *ONE_AGENT)
    machine.living("up").kill()
    until(lambda: machine.process("up") is None, "the supervisor is dead")
    assert machine.torch("down").stdout == "ended: beat, node, pane of dev-1, broker\n"
    assert machine.is_clean()


def test_the_demo_shows_its_tasks_and_leaves_nothing(machine: Machine) -> None:
    scratch = machine.folder / "scratch"
    scratch.mkdir()
    said = machine.torch("demo", seconds=200, TMPDIR=str(scratch)).stdout
    assert "everything has ended, nothing is left running" in said
    assert len(re.findall(r"^[0-9a-f]{8} .* (?:succeeded|failed) ", said, re.MULTILINE)) == 6
    assert "password" not in said, "of a Flower that has ended"
    assert machine.is_clean()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("moment", "words", "ending", "code"),
    [
        ("starting", (), signal.SIGTERM, 1),
        ("up after", (), signal.SIGHUP, 1),
        ("Ctrl-C ends the demo.", ("--stay",), signal.SIGTERM, 0),
    ],
)
def test_a_demo_that_is_ended_leaves_nothing(
    machine: Machine, moment: str, words: tuple[str, ...], ending: signal.Signals, code: int
) -> None:
    """While it starts, while its tasks run, and when it would stay."""
    scratch = machine.folder / "scratch"
    scratch.mkdir()
    machine.env["TMPDIR"] = str(scratch)
    demo = machine.start("demo", *words)
    if moment == "starting":
        until(lambda: any(scratch.glob("torch-demo-*/state/run/*.json")), "a process of its stack is recorded", 60)
    else:
        until(lambda: moment in machine.output.read_text(), "it has come so far", 90)
    demo.send_signal(ending)
    demo.send_signal(ending)
    assert demo.wait(45) == code
    assert machine.is_clean()
    assert list(scratch.iterdir()) == []
    said = machine.output.read_text()
    assert "Traceback" not in said
    assert ("user torch, password " in said) == ("--stay" in words)


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


@pytest.mark.parametrize("command", ["up --detach", "node"])
def test_two_agents_of_one_id_are_refused_before_anything_starts(machine: Machine, command: str) -> None:
    done = machine.torch(*command.split(), "--agent", "dev-1:developer", "--agent", "dev-1:qa", code=2)
    assert "two agents have the id 'dev-1': dev-1:developer::shell and dev-1:qa::shell" in done.stderr
    assert machine.is_clean()
    assert not machine.state.exists()


def test_a_state_folder_too_deep_for_sockets_is_refused_at_once(machine: Machine) -> None:
    deep = machine.folder / ("d" * 100)
    began = time.monotonic()
    done = machine.torch("up", "--detach", *ONE_AGENT, code=1, TORCH_STATE_DIR=str(deep))
    assert time.monotonic() - began < 10
    assert "at most 100 work" in done.stderr
    assert "set TORCH_STATE_DIR to a shorter folder" in done.stderr
    assert machine.is_clean()
    assert not deep.exists()


def test_a_port_that_cannot_be_is_refused_by_its_variable(machine: Machine) -> None:
    for command in ("up --detach", "tasks", "doctor", "node"):
        done = machine.torch(*command.split(), code=None, TORCH_BROKER_URL="redis://127.0.0.1:99999")
        assert done.returncode == 2
        assert "TORCH_BROKER_URL: has no port that can be" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


# ── beside each other ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_chosen_broker_is_used_and_none_is_started_or_ended(stack: Kept, new_machine: Callable[..., Machine]) -> None:
    url = administrators_address(Settings(state_dir=stack.machine.state)).url.get_secret_value()
    keys = str(stack.machine.state / "keys")  # of one fleet
    guest = new_machine(TORCH_BROKER_URL=url, TORCH_NODE="guest", TORCH_KEYS_DIR=keys)
    guest.torch("up", "--detach", "--agent", "guest-1:guest", "--no-flower", "--no-beat")
    assert guest.process("broker") is None
    assert not list(guest.state.rglob("kept.json"))
    assert stack.machine.torch("run", "--role", "guest", "--wait", "echo hi").stdout == "hi\n"
    assert guest.torch("down").stdout == "ended: up, node, pane of guest-1\n"
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

    def waiting() -> dict[str, int]:
        return {queue["name"]: queue["messages"] for queue in flower.api("/api/queues/length")["active_queues"]}

    assert "torch.system" in waiting()
    until(lambda: not any(waiting().values()), "nothing waits, once what beat has sent meanwhile is done")
