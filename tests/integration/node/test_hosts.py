"""Several hosts: what crosses the wire, and what becomes of tasks, messages and panes when it is cut."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hosts import Host, Network, wire
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TAKEOVER_SECONDS = 60.0
"""More than a takeover needs on a busy machine."""


@pytest.fixture
def network() -> Iterator[Network]:
    """A wire with the broker's host on it."""
    with wire() as network:
        yield network


@pytest.fixture
def desk(network: Network) -> Host:
    """Where a person sits: nothing of the fleet runs there."""
    return network.host("desk")


def task(desk: Host, task_id: str) -> dict[str, Any]:
    """What the fleet knows of a task."""
    known: dict[str, Any] = json.loads(desk.torch("task", task_id, "--json").stdout)
    return known


def agents(desk: Host) -> dict[str, dict[str, Any]]:
    """The agents by their ids."""
    return {agent["agent_id"]: agent for agent in json.loads(desk.torch("agents", "--json").stdout)}


def gated(desk: Host, folder: Path, *options: str) -> str:
    """The id of a task that has begun, and ends when its gate opens; it notes who begins and who finishes it."""
    script = (
        f"echo $TORCH_AGENT_ID >> {folder}/begun\nuntil [ -e {folder}/gate ]; do sleep 0.1; done\n"
        f"echo $TORCH_AGENT_ID >> {folder}/effect\necho finished by $TORCH_AGENT_ID"
    )
    task_id = desk.torch("run", script, "--role", "developer", *options).stdout.strip()
    until(lambda: begun(folder), "the task has begun", 60)
    return task_id


def begun(folder: Path) -> list[str]:
    """The agents that began the task, in their order."""
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []


def of(agent_id: str, *candidates: Host) -> tuple[Host, Host]:
    """The host of this agent, and the other one."""
    first, second = candidates
    return (first, second) if agent_id == f"developer-{first.name}" else (second, first)


@pytest.fixture
def two(network: Network) -> tuple[Host, Host]:
    """Two hosts with one developer each."""
    pair = (network.host("a"), network.host("b"))
    for host in pair:
        host.up(f"developer-{host.name}:developer")
    return pair


def test_tasks_and_messages_cross_hosts(two: tuple[Host, Host], desk: Host, tmp_path: Path) -> None:
    for host in two:
        answer = desk.torch("run", "cat /proc/net/fib_trie", "--agent", f"developer-{host.name}", "--wait")
        assert host.address in answer.stdout
    asked = f"torch-tasks ask developer-b 'torch-tasks reply \"from $TORCH_AGENT_ID\"' --timeout 30 > {tmp_path}/reply"
    desk.torch("send", "developer-a", asked)
    until(lambda: (tmp_path / "reply").exists() and (tmp_path / "reply").read_text(), "the reply is there", 40)
    assert (tmp_path / "reply").read_text() == "from developer-b\n"


def test_the_task_of_a_host_that_is_cut_off_is_finished_elsewhere_and_its_pane_let_go(
    two: tuple[Host, Host], desk: Host, tmp_path: Path
) -> None:
    task_id = gated(desk, tmp_path)
    lost, other = of(begun(tmp_path)[0], *two)
    with lost.cut_off():
        until(lambda: len(begun(tmp_path)) == 2, "the task runs elsewhere", TAKEOVER_SECONDS)
        known = agents(desk)
        assert known[f"developer-{lost.name}"]["status"] == "offline"
    pane = lost.pane(f"developer-{lost.name}")[0]

    def interrupted() -> bool:
        return "^C" in lost.tmux(f"developer-{lost.name}", "capture-pane", "-p", "-J", "-t", pane)

    until(interrupted, "the old pane was interrupted", 60)
    (tmp_path / "gate").touch()
    until(lambda: task(desk, task_id)["state"] == "succeeded", "the task has ended", 30)
    ended = task(desk, task_id)
    assert ended["result"]["agent"] == f"developer-{other.name}"
    assert (tmp_path / "effect").read_text().split() == [f"developer-{other.name}"]
    answer = desk.torch("run", "echo usable", "--agent", f"developer-{lost.name}", "--wait", seconds=60)
    assert answer.stdout.strip().endswith("usable")


def test_a_short_cut_takes_nothing_from_anybody(two: tuple[Host, Host], desk: Host, tmp_path: Path) -> None:
    task_id = gated(desk, tmp_path)
    lost, _ = of(begun(tmp_path)[0], *two)
    with lost.cut_off():
        (tmp_path / "gate").touch()
        until((tmp_path / "effect").exists, "it is finished in the pane")
    until(lambda: task(desk, task_id)["state"] == "succeeded", "the task has ended", 60)
    assert task(desk, task_id)["result"]["agent"] == f"developer-{lost.name}"
    assert len(begun(tmp_path)) == 1


@pytest.mark.parametrize("direction", ["from the host", "to the host"])
def test_a_host_that_is_heard_one_way_only_loses_its_task_like_one_that_is_cut_off(
    two: tuple[Host, Host], desk: Host, network: Network, tmp_path: Path, direction: str
) -> None:
    task_id = gated(desk, tmp_path)
    lost, other = of(begun(tmp_path)[0], *two)
    broker = network.broker_host
    with lost.mute(broker) if direction == "from the host" else broker.mute(lost):
        until(lambda: len(begun(tmp_path)) == 2, "the task runs elsewhere", TAKEOVER_SECONDS)
        (tmp_path / "gate").touch()
        until(lambda: task(desk, task_id)["state"] == "succeeded", "the task has ended", 30)
    assert task(desk, task_id)["result"]["agent"] == f"developer-{other.name}"
    until(lambda: agents(desk)[f"developer-{lost.name}"]["status"] == "active", "it is back", 60)
    assert task(desk, task_id)["result"]["agent"] == f"developer-{other.name}"


def test_the_tasks_of_a_host_that_dies_go_to_another(two: tuple[Host, Host], desk: Host, tmp_path: Path) -> None:
    task_id = gated(desk, tmp_path)
    lost, other = of(begun(tmp_path)[0], *two)
    for process in lost.survivors():
        with contextlib.suppress(psutil.NoSuchProcess):  # it went with one that was killed before it
            process.kill()
    until(lambda: len(begun(tmp_path)) == 2, "the task runs elsewhere", TAKEOVER_SECONDS)
    (tmp_path / "gate").touch()
    until(lambda: task(desk, task_id)["state"] == "succeeded", "the task has ended", 30)
    ended = task(desk, task_id)
    assert ended["result"]["agent"] == f"developer-{other.name}"
    history = desk.torch("task", task_id).stdout
    assert f"taken over from developer-{lost.name} on {lost.name}" in history


def test_a_message_for_a_host_that_is_cut_off_waits_and_arrives_once(
    two: tuple[Host, Host], desk: Host, tmp_path: Path
) -> None:
    lost, _ = two
    agent = f"developer-{lost.name}"
    with lost.cut_off():
        until(lambda: agents(desk)[agent]["status"] == "offline", "it is missed", 40)
        desk.torch("send", agent, f"echo one >> {tmp_path}/got")
    until((tmp_path / "got").exists, "the message has arrived", 60)
    desk.torch("send", agent, f"echo two >> {tmp_path}/got")
    until(lambda: (tmp_path / "got").read_text().split()[-1] == "two", "the next has arrived", 60)
    assert (tmp_path / "got").read_text().split() == ["one", "two"]


def test_what_is_sent_from_a_host_that_is_cut_off_goes_out_when_it_is_back(
    two: tuple[Host, Host], tmp_path: Path
) -> None:
    lost, other = two
    with lost.cut_off():
        said = lost.torch("send", f"developer-{other.name}", f"echo one >> {tmp_path}/got", code=None, seconds=60)
        assert "spool" in said.stdout
        local = lost.torch("send", f"developer-{lost.name}", f"echo near >> {tmp_path}/near", code=None, seconds=60)
        assert "fallback" in local.stdout
        until((tmp_path / "near").exists, "what is near has arrived", 30)
        assert not (tmp_path / "got").exists()
    until((tmp_path / "got").exists, "what was far has arrived", 60)
    assert (tmp_path / "got").read_text() == "one\n"
