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
import socket
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

from torch_tasks.broker.connection import connect
from torch_tasks.errors import AgentUnavailable
from torch_tasks.machine import commands
from torch_tasks.machine.broker import administrators_address, start_broker
from torch_tasks.settings import Settings
from torch_tasks.transport import Gate
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


FILES = {unit: UNITS / f"torch-{unit}.service" for unit in ("node", "beat@", "serve", "flower")}
WITHOUT_AGENTS = ("beat@", "serve", "flower")
MOST_EXPOSED = 3.0
"""By systemd's own measure, from 0 (locked up) to 10."""


def analyze(*words: str, runtime: Path) -> subprocess.CompletedProcess[str]:
    """What the real ``systemd-analyze`` says."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_COLORS": "0"}
    return subprocess.run(["systemd-analyze", *words], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("manager", ["--system", "--user"])
def test_systemd_takes_the_units(manager: str, tmp_path: Path) -> None:
    done = analyze(manager, "verify", *map(str, FILES.values()), runtime=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_names_what_is_wrong_with_a_unit(tmp_path: Path) -> None:
    broken = tmp_path / "torch-node.service"
    broken.write_text(FILES["node"].read_text().replace("WatchdogSec=120", "WatchdogSeconds=120"))
    assert "'WatchdogSeconds'" in analyze("verify", str(broken), runtime=tmp_path).stderr


def test_what_starts_no_agents_is_locked_up(tmp_path: Path) -> None:
    for unit in WITHOUT_AGENTS:
        name = f"torch-{unit}.service"
        (tmp_path / f"{name}.d").mkdir()
        shutil.copy(FILES[unit], tmp_path / name)
        shutil.copy(UNITS / "torch-system.conf", tmp_path / f"{name}.d")
        words = ("security", "--offline=true", f"--threshold={10 * MOST_EXPOSED:.0f}", str(tmp_path / name))
        done = analyze("--system", *words, runtime=tmp_path)
        assert done.returncode == 0, done.stdout[-500:]
        done = analyze("--system", "verify", str(tmp_path / name), runtime=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("unit", "command"),
    [
        ("node", commands.NODE),
        ("beat@", commands.BEAT),
        ("serve", commands.SERVE),
        ("flower", commands.flower("127.0.0.1", 5555)),
    ],
)
def test_the_units_run_what_everybody_runs(unit: str, command: tuple[str, ...]) -> None:
    words = shlex.split(settings_of(unit)["ExecStart"])
    assert words == ["/usr/bin/env", *command]


@pytest.mark.parametrize("unit", FILES)
def test_no_unit_holds_a_secret_and_each_says_where_they_are(unit: str) -> None:
    found = settings_of(unit)
    assert found.get("Environment", "TORCH_METRICS_BEAT_PORT=%i") == "TORCH_METRICS_BEAT_PORT=%i"
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
    # Filters would reach the agents' boxes, which need namespaces.
    assert [name for name in found if name.startswith(("Restrict", "SystemCall", "NoNew", "Protect"))] == []


def settings_of(unit: str) -> dict[str, str]:
    """What the unit sets."""
    lines = FILES[unit].read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


# ── what systemd is told ─────────────────────────────────────────────────────────────────────────────────────────


class NotifySocket:
    """The socket at which systemd listens to a unit."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(30)

    def hear_until(self, wanted: str) -> list[str]:
        """All that is said until this line comes."""
        heard: list[str] = []
        while wanted not in heard:
            heard += self._socket.recv(4096).decode().split("\n")
        return heard


def test_a_beat_tells_systemd_what_it_waits_for_and_that_it_is_ready(tmp_path: Path) -> None:
    machine = Machine(TORCH_METRICS_BEAT_PORT="0")
    address = machine.folder / "notify"
    listener = NotifySocket(address)
    settings = Settings(state_dir=machine.state)
    argv = [str(Path(TORCH_TASKS).with_name("celery")), *commands.BEAT[1:]]
    try:
        start_broker(settings)
        machine.living("broker").kill()
        beat = subprocess.Popen(
            argv, cwd=machine.work, env={**machine.env, "NOTIFY_SOCKET": str(address)}, stderr=subprocess.DEVNULL
        )
        heard = listener.hear_until("WATCHDOG=1")
        assert "READY=1" not in heard
        [status] = [line for line in heard if line.startswith("STATUS=")]
        assert "broker" in status
        start_broker(settings)
        gate = Gate(connect(administrators_address(settings)))
        until(lambda: gate.enter(gate.state().identity, 0, 0).open, "the gate opens, as a worker has it opened")
        assert "STATUS=ready" in listener.hear_until("READY=1")
        listener.hear_until("WATCHDOG=1")  # and again, for its watchdog
        beat.terminate()
        beat.wait(20)
    finally:
        machine.close()


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


def start_unit(machine: UnitMachine, group: Path, **env: str) -> subprocess.Popen[bytes]:
    """The node worker as a unit starts it: everything it starts begins in the unit's group."""
    argv = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")]
    with machine.output.open("ab") as log:
        node = subprocess.Popen(
            [*argv, TORCH_TASKS, "node", "--agent", "dev-1:developer"],
            cwd=machine.work,
            env={**machine.env, **env},
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
    systemd = NotifySocket(machine.folder / "notify")
    node = start_unit(machine, groups / "unit", NOTIFY_SOCKET=str(machine.folder / "notify"))
    held_task(machine)
    systemd.hear_until("READY=1")
    assert "NOTIFY_SOCKET" not in machine.living("agent-dev-1").environ()  # only the node worker speaks for the unit
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
