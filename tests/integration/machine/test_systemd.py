"""Under systemd: the units are valid, and a pane outlives its worker's unit.

systemd need not run here. The control groups are real; `systemd-run` is played by a script that does what counts:
it moves into another group and becomes the command.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from machine import TORCH_TASKS, Machine
from tmux_parts import folder as folder
from tmux_parts import start as start
from waiting import until

from torch_tasks.errors import AgentUnavailable
from torch_tasks.machine import commands
from torch_tasks.machine.broker import start_broker
from torch_tasks.settings import Settings
from torch_tasks.workers.tmux.cgroup import scope_words
from torch_tasks.workers.tmux.pane import AgentPane
from torch_tasks.workers.tmux.server import AgentServer

UNITS = Path(__file__).parents[3] / "compose" / "systemd"
TO_STOP_SECONDS = 20.0
MOVES = """\
#!/bin/sh
[ "$1" = --version ] && {{ echo systemd 252; exit; }}
while [ "$1" != -- ]; do
    [ "$1" = --unit ] && unit=$2
    shift
done
shift
mkdir {groups}/"$unit" && echo $$ >{groups}/"$unit"/cgroup.procs && exec "$@"
"""
FAILS = """\
#!/bin/sh
[ "$1" = --version ] && { echo systemd 252; exit; }
echo 'Failed to connect to bus: No medium found' >&2
exit 1
"""


# ── the units ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("manager", ["--system", "--user"])
@pytest.mark.parametrize("unit", ["node", "beat", "flower"])
def test_systemd_takes_the_units(unit: str, manager: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    argv = ["systemd-analyze", manager, "verify", str(UNITS / f"torch-{unit}.service")]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("unit", "command"),
    [("node", commands.NODE), ("beat", commands.BEAT), ("flower", commands.flower("127.0.0.1", 5555))],
)
def test_the_units_run_what_everybody_runs(unit: str, command: tuple[str, ...]) -> None:
    words = shlex.split(settings_of(unit)["ExecStart"])
    assert words == ["/usr/bin/env", *command]


@pytest.mark.parametrize("unit", ["node", "beat", "flower"])
def test_no_unit_holds_a_secret_and_each_says_where_they_are(unit: str) -> None:
    found = settings_of(unit)
    assert "Environment" not in found
    assert found["EnvironmentFile"] == "%E/torch/torch.env"


def test_flower_does_not_start_without_a_password() -> None:
    words = shlex.split(settings_of("flower")["ExecStartPre"].replace("$$", "$"))
    for password, code in (("", 1), ("user:password", 0)):
        done = subprocess.run(words, env={"FLOWER_BASIC_AUTH": password}, capture_output=True, check=False)
        assert done.returncode == code


def test_a_stop_of_the_node_worker_reaches_no_pane_and_an_agents_hunger_no_other_agent() -> None:
    found = settings_of("node")
    assert (found["KillMode"], found["OOMPolicy"], found["Restart"]) == ("process", "continue", "always")
    assert float(found["TimeoutStopSec"]) > TO_STOP_SECONDS


def settings_of(unit: str) -> dict[str, str]:
    """What the unit sets."""
    lines = (UNITS / f"torch-{unit}.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


# ── a scope for each pane ────────────────────────────────────────────────────────────────────────────────────────


class UnitMachine(Machine):
    """A machine with one agent, whose workers think that systemd runs them."""

    def __init__(self, systemd_run: str, **environment: str) -> None:
        super().__init__(INVOCATION_ID=uuid.uuid4().hex, **environment)
        folder = self.folder / "bin"
        folder.mkdir()
        (folder / "systemd-run").write_text(systemd_run)
        (folder / "systemd-run").chmod(0o755)
        self.env["PATH"] = f"{folder}:{self.env['PATH']}"
        start_broker(Settings(state_dir=self.state))

    def has_agent(self) -> bool:
        """The agent has its pane, at work or not."""
        agents = json.loads(self.torch("agents", "--online", "--json").stdout)
        return [agent["state"] in ("ready", "working") for agent in agents] == [True]


@pytest.fixture
def groups() -> Iterator[Path]:
    """A control group for what a test starts, on whatever hierarchy this machine lets us use."""
    folder = next((made for root in _hierarchies() if (made := _group_below(root))), None)
    if folder is None:
        pytest.skip("no control group can be made here")
    yield folder
    for group in [*folder.iterdir(), folder]:
        if group.is_dir():
            until(lambda group=group: _removed(group), f"{group} can be removed", 10)


def _hierarchies() -> Iterator[Path]:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind in ("cgroup2", "cgroup"):
            yield Path(path)


def _group_below(root: Path) -> Path | None:
    """A new group in which processes can be put."""
    folder = root / f"torch-test-{uuid.uuid4().hex[:8]}"
    probe = subprocess.Popen(["sleep", "60"])
    try:
        folder.mkdir()
        (folder / "unit").mkdir()
        (folder / "unit" / "cgroup.procs").write_text(str(probe.pid))
        return folder
    except OSError:
        with suppress(OSError):
            (folder / "unit").rmdir()
            folder.rmdir()
        return None
    finally:
        probe.kill()
        probe.wait()


def _removed(group: Path) -> bool:
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.fixture
def machine(groups: Path, request: pytest.FixtureRequest) -> Iterator[UnitMachine]:
    """A machine on which `systemd-run` makes groups beside the unit's."""
    machine = UnitMachine(MOVES.format(groups=groups), **getattr(request, "param", {}))
    yield machine
    machine.close()


def start_unit(machine: UnitMachine, group: Path) -> subprocess.Popen[bytes]:
    """The node worker as a unit starts it: everything it starts begins in the unit's group."""
    argv = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")]
    with machine.output.open("ab") as log:
        node = subprocess.Popen(
            [*argv, TORCH_TASKS, "node", "--agent", "dev-1:developer"],
            cwd=machine.work,
            env=machine.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    until(machine.has_agent, "the agent is ready", 60)
    return node


def stop_group(group: Path) -> None:
    """End every process of the group as ``KillMode=control-group`` does: asked, and killed after a while."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        _signal(group, how)
        with suppress(AssertionError):
            until(lambda: not _members(group), "the group is empty", TO_STOP_SECONDS)
            return
    raise AssertionError(f"{group} is not empty: {_members(group)}")


def _signal(group: Path, how: signal.Signals) -> None:
    for process in _members(group):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)


def _members(group: Path) -> list[psutil.Process]:
    found = []
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(pid))
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_gone(pid: int) -> bool:
    """The process can do nothing any more, collected or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def held_task(machine: UnitMachine) -> None:
    """A task that has begun and goes on until the gate is there; each run of it adds a line to a file."""
    script = "echo ran >>effect; until [ -e gate ]; do sleep 0.05; done; echo finished"
    machine.torch("run", "--id", "held", script)
    until((machine.work / "effect").exists, "the task has begun")


@pytest.mark.slow
def test_a_pane_outlives_the_end_of_its_workers_unit(machine: UnitMachine, groups: Path) -> None:
    node = start_unit(machine, groups / "unit")
    held_task(machine)
    pane = machine.pane("dev-1")
    scope = next(groups.glob("torch-agent-dev-1-*"))
    assert {"bash", "tmux: server"} <= {process.name() for process in _members(scope)}
    stop_group(groups / "unit")
    node.wait()
    assert machine.process("agent-dev-1") is None
    assert machine.pane("dev-1") == pane

    start_unit(machine, groups / "unit")
    (machine.work / "gate").touch()
    until(lambda: '"succeeded"' in machine.torch("task", "held", "--json").stdout, "the task has ended")
    assert machine.pane("dev-1") == pane
    assert (machine.work / "effect").read_text() == "ran\n"


@pytest.mark.slow
@pytest.mark.parametrize("machine", [{"TORCH_PANE_SCOPE": "never"}], indirect=True)
def test_without_a_scope_the_pane_dies_with_the_unit_and_its_task_is_tried_again(
    machine: UnitMachine, groups: Path
) -> None:
    node = start_unit(machine, groups / "unit")
    held_task(machine)
    _, program = machine.pane("dev-1")
    stop_group(groups / "unit")
    node.wait()
    until(lambda: is_gone(program), "the program in the pane is dead")
    begun = len((machine.work / "effect").read_text().splitlines())
    start_unit(machine, groups / "unit")
    until(lambda: len((machine.work / "effect").read_text().splitlines()) > begun, "the task is tried again")
    (machine.work / "gate").touch()
    until(lambda: '"succeeded"' in machine.torch("task", "held", "--json").stdout, "the task has ended")
    assert json.loads(machine.torch("task", "held", "--json").stdout)["attempts"] > begun


# ── where there is none to be had ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def under_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a unit's, and `systemd-run` fails."""
    program = tmp_path / "systemd-run"
    program.write_text(FAILS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("INVOCATION_ID", uuid.uuid4().hex)


def test_an_agent_that_gets_no_scope_starts_without_and_the_log_says_why(
    under_systemd: None, start: Callable[..., AgentPane], caplog: pytest.LogCaptureFixture
) -> None:
    assert start("sh", scope="auto").look()
    assert "developer-1: no scope of its own" in caplog.text
    assert "No medium found" in caplog.text


def test_an_agent_that_must_have_a_scope_does_not_start_without(
    under_systemd: None, start: Callable[..., AgentPane], folder: Path
) -> None:
    with pytest.raises(AgentUnavailable, match="No medium found"):
        start("sh", scope="always")
    assert AgentServer(folder / "s").listener() is None


def test_no_scope_is_asked_for_that_nobody_wants(
    under_systemd: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert scope_words("dev-1", "never") == ()
    assert scope_words("dev-1", "auto") != ()
    monkeypatch.delenv("INVOCATION_ID")
    assert scope_words("dev-1", "auto") == ()
    assert scope_words("dev-1", "always") != ()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(AgentUnavailable, match="no systemd-run on PATH"):
        scope_words("dev-1", "always")


def test_each_scope_has_a_name_of_its_own_that_tells_the_agent(under_systemd: None) -> None:
    units = [words[words.index("--unit") + 1] for words in (scope_words("dev-1", "auto") for _ in range(2))]
    assert units[0] != units[1]
    assert all(unit.startswith("torch-agent-dev-1-") for unit in units)
