"""The node worker keeps its machine's agent workers alive, exactly one for each agent."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from forked import require_forks
from machine import Machine
from waiting import until

from torch_tasks.machine.broker import start_broker
from torch_tasks.settings import Settings

MOST_OWN_MEMORY = 45 << 20
"""Of an agent worker, which has more than 60 MiB when it shares nothing."""
KEEP = ("--agent", "dev-1:developer:python")


class NodeMachine(Machine):
    """A machine with a broker and a node worker, and nobody who would start that again."""

    nodes: list[subprocess.Popen[str]]

    def __init__(self, **environment: str) -> None:
        super().__init__(**environment)
        self.nodes = []
        start_broker(Settings(state_dir=self.state))

    def node(self, *words: str) -> subprocess.Popen[str]:
        """A new node worker that is ready; its log begins anew."""
        self.output.unlink(missing_ok=True)
        self.nodes.append(self.start("node", *words))
        until(lambda: "node@" in self.said and " ready." in self.said, "the node worker is ready", 60)
        return self.nodes[-1]

    @property
    def said(self) -> str:
        """The log of the latest node worker."""
        return self.output.read_text()

    def agent(self, agent_id: str) -> dict[str, Any] | None:
        """The agent as the fleet knows it, if it is online and ready."""
        for info in json.loads(self.torch("agents", "--online", "--json").stdout):
            if info["agent_id"] == agent_id and info["state"] == "ready":
                return dict(info)
        return None

    def workers(self, agent_id: str) -> list[int]:
        """The processes that host this agent."""
        return [process.pid for process in self.survivors() if _hosts(process, agent_id)]

    def close(self) -> None:
        for node in self.nodes:
            if node.poll() is None:
                node.kill()
            node.wait()
        super().close()


def _hosts(process: psutil.Process, agent_id: str) -> bool:
    """The process is an agent worker of this agent."""
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return ("--id", agent_id) in itertools.pairwise(words)


@pytest.fixture(scope="module")
def machine() -> Iterator[NodeMachine]:
    """A machine whose node worker keeps one agent."""
    machine = NodeMachine(TORCH_WARM_START="true")
    machine.node(*KEEP)
    until(lambda: machine.agent("dev-1"), "the agent is ready")
    machine.torch("run", "--wait", "MEMORY=kept")
    yield machine
    machine.close()


def test_a_killed_agent_worker_is_started_again_and_adopts_its_pane(machine: NodeMachine) -> None:
    pane, worker = machine.pane("dev-1"), machine.living("agent-dev-1")
    worker.kill()
    until(lambda: (now := machine.process("agent-dev-1")) and now != worker, "the agent worker was started again")
    assert machine.torch("run", "--wait", "--wait-timeout", "20", "echo $MEMORY").stdout == "kept\n"
    assert machine.pane("dev-1") == pane
    assert f"agent worker {worker.pid} has ended" in machine.said


def test_an_agent_worker_is_forked_goes_on_without_its_parent_and_its_end_is_known(machine: NodeMachine) -> None:
    require_forks()
    worker, parent = machine.living("agent-dev-1"), machine.living("warm")
    assert worker.ppid() == parent.pid
    own = worker.memory_full_info().uss
    assert own < MOST_OWN_MEMORY
    parent.kill()
    assert machine.torch("run", "--wait", "echo $MEMORY").stdout == "kept\n"
    assert machine.living("agent-dev-1") == worker
    worker.kill()
    until(lambda: (now := machine.process("agent-dev-1")) and now != worker, "the agent worker was started again")
    worker = machine.living("agent-dev-1")
    until(lambda: worker.ppid() == machine.living("warm").pid, "it was forked from the next warm parent")
    worker.kill()
    until(lambda: f"agent worker {worker.pid} has ended with exit code -9" in machine.said, "how it ended is known")
    assert machine.torch("run", "--wait", "echo $MEMORY").stdout == "kept\n"


def test_a_killed_node_worker_takes_no_agent_with_it_and_the_next_starts_no_second(machine: NodeMachine) -> None:
    worker = machine.living("agent-dev-1")
    machine.nodes[-1].kill()
    machine.nodes[-1].wait()
    assert machine.torch("run", "--wait", "echo $MEMORY").stdout == "kept\n"
    machine.node(*KEEP)
    assert machine.torch("run", "--wait", "echo $MEMORY").stdout == "kept\n"
    assert machine.workers("dev-1") == [worker.pid]
    assert machine.living("agent-dev-1") == worker
    assert "agent worker started" not in machine.said


def test_the_next_node_worker_starts_again_what_it_did_not_start_itself(machine: NodeMachine) -> None:
    machine.nodes[-1].kill()
    machine.nodes[-1].wait()
    machine.node(*KEEP)
    worker = machine.living("agent-dev-1")
    worker.kill()
    until(lambda: (now := machine.process("agent-dev-1")) and now != worker, "the agent worker was started again")


def test_a_node_worker_that_leaves_ends_its_agent_workers_but_no_pane(machine: NodeMachine) -> None:
    until(lambda: machine.agent("dev-1"), "the agent is ready")
    pane = machine.pane("dev-1")
    assert machine.workers("dev-1")
    machine.nodes[-1].terminate()
    assert machine.nodes[-1].wait(30) == 0
    assert machine.workers("dev-1") == []
    assert machine.pane("dev-1") == pane
    assert psutil.Process(pane[1]).is_running()
    # At once, unless the machine is so busy that its worker had to be killed: then its heartbeat is missed.
    until(lambda: json.loads(machine.torch("agents", "--json").stdout)[0]["status"] == "offline", "it is offline", 60)


@pytest.fixture
def strict_machine() -> Iterator[NodeMachine]:
    """A machine with little patience, on which one agent can start and two can not."""
    machine = NodeMachine(TORCH_QUARANTINE_CRASHES="2")
    config = machine.folder / "config" / "torch.toml"
    config.parent.mkdir()
    config.write_text(
        f"""
        agents = [
            {{id = "good-1", role = "developer"}},
            {{id = "homeless-1", role = "developer", workdir = "{machine.folder}/missing"}},
            {{id = "strange-1", role = "developer", kind = "nonesuch"}},
        ]
        """
    )
    yield machine
    machine.close()


def test_an_agent_that_cannot_start_is_left_down_and_the_log_says_why(strict_machine: NodeMachine) -> None:
    machine = strict_machine
    machine.node()
    for agent_id in ("homeless-1", "strange-1"):
        until(lambda name=agent_id: f"{name}: in quarantine after 2 crashes in a row" in machine.said, agent_id)
        assert machine.workers(agent_id) == []
        assert machine.said.count(f"{agent_id}: agent worker started") == 2
    assert f"its workdir {machine.folder}/missing is not a folder on this node" in machine.said
    assert "there is no agent kind 'nonesuch'" in machine.said
    assert machine.torch("run", "--wait", "echo $TORCH_AGENT_ID").stdout == "good-1\n"


# ── the agent is there for the next task, whatever the last one did ──────────────────────────────────────────────


@pytest.fixture
def another() -> Iterator[NodeMachine]:
    """A machine whose one agent may come to harm."""
    machine = NodeMachine()
    machine.node(*KEEP)
    yield machine
    machine.close()


def test_the_answer_is_whole_when_the_script_ends_its_shell(another: NodeMachine) -> None:
    size = len("".join(f"{number}\n" for number in range(1, 20001)))
    for task_id in ("one", "two", "three"):
        another.torch("run", "--wait", "--wait-timeout", "30", "--id", task_id, "seq 20000; exit 7", code=1)
        assert json.loads(another.torch("task", task_id, "--json").stdout)["result"]["answer_bytes"] == size


def test_what_a_task_left_in_the_background_and_prints_late_does_not_stop_the_agent(another: NodeMachine) -> None:
    gate = another.work / "gate"
    another.torch("run", "--wait", f"(until [ -e {gate} ]; do sleep 0.05; done; echo is late) & echo now")
    gate.touch()
    until(lambda: "is late\n" in another.torch("screen", "dev-1", "--history", "50").stdout, "it is printed")
    assert another.torch("run", "--wait", "--wait-timeout", "30", "echo alive").stdout == "alive\n"
