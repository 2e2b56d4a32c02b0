"""The machines of a fleet get a newer release one after the other, and the older one again, while tasks flow.

``TORCH_TEST_LONG=1`` has three hosts, which all change, and 100 tasks more at each change, as ``make chaos`` does.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from appended import whole_lines
from hosts import Host, Network, wire
from machine import TORCH_TASKS, short_folder
from waiting import until
from wheels import installed_beside, sources, wheel_of, with_format

from torch_tasks.model.fleet_format import FORMAT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LONG = os.environ.get("TORCH_TEST_LONG") == "1"
HOSTS, CHANGED, AGENTS, TASKS, SECONDS = ("abc", 3, 2, 100, 2.0) if LONG else ("ab", 1, 1, 12, 2.0)
"""The hosts, how many of them change, the agents of each, the tasks that come with each change, the seconds of one."""
NEWER = "9.1.0"


@pytest.fixture
def newer() -> Iterator[str]:
    """The command of a newer release, which was built as a wheel and installed beside this one."""
    place = short_folder()
    yield str(installed_beside(wheel_of(sources(place, NEWER), place), place))
    shutil.rmtree(place)


@pytest.fixture
def network() -> Iterator[Network]:
    """A wire with the broker's host on it."""
    with wire() as network:
        yield network


def ids_on(host: Host) -> list[str]:
    return [f"dev-{host.name}{number}" for number in range(AGENTS)]


def begin(host: Host) -> None:
    host.up(*(f"{agent}:developer" for agent in ids_on(host)))


def versions(desk: Host) -> set[str]:
    return {node["version"] for node in json.loads(desk.torch("node", "list", "--json").stdout)["nodes"]}


class Flow:
    """Tasks that come in batches, each of which notes when it begins and when it is done."""

    def __init__(self, desk: Host, folder: Path) -> None:
        self._desk = desk
        self._folder = folder
        self.files: list[Path] = []

    def add(self) -> None:
        """Hand in another batch."""
        new = [self._folder / f"t{len(self.files) + number}" for number in range(TASKS)]
        script = "echo begun >> {0}; sleep {1:g}; echo done >> {0}"
        order = self._folder / "order.yaml"
        order.write_text(json.dumps([{"id": file.name, "prompt": script.format(file, SECONDS)} for file in new]))
        self._desk.torch("run", "--role", "developer", "--file", str(order))
        self.files += new

    def in_flight(self) -> int:
        return sum("done" not in whole_lines(file) for file in self.files)

    def records(self) -> list[dict[str, object]]:
        found: list[dict[str, object]]
        found = json.loads(self._desk.torch("tasks", "--limit", str(len(self.files)), "--json").stdout)
        return found


def change(host: Host, program: str, flow: Flow) -> None:
    """End all of Torch on this host but its agents' panes, with tasks in flight, and start it with another release."""
    flow.add()
    host.torch("down", "--keep-agents")
    assert flow.in_flight()
    host.program = program
    begin(host)


def test_a_fleet_is_upgraded_and_rolled_back_host_by_host(network: Network, newer: str, tmp_path: Path) -> None:
    desk, fleet = network.host("desk"), [network.host(name) for name in HOSTS]
    with ThreadPoolExecutor() as together:
        list(together.map(begin, fleet))
    panes = {agent: host.pane(agent) for host in fleet for agent in ids_on(host)}
    flow, older = Flow(desk, tmp_path), versions(desk)
    mixed: set[frozenset[str]] = set()
    for program in (newer, TORCH_TASKS):
        for host in fleet[:CHANGED]:
            change(host, program, flow)
            mixed.add(frozenset(versions(desk)))
        desk.program = program
    assert frozenset(older | {NEWER}) in mixed
    assert versions(desk) == older
    until(lambda: all(one["state"] == "succeeded" for one in flow.records()), "all tasks have succeeded", 240)
    assert len(flow.records()) == len(flow.files)
    assert {one["attempts"] for one in flow.records()} == {1}
    lost = [file.name for file in flow.files if "done" not in whole_lines(file)]
    doubled = [file.name for file in flow.files if len(whole_lines(file)) > 2]
    assert (lost, doubled) == ([], [])
    assert {agent: host.pane(agent) for host in fleet for agent in ids_on(host)} == panes
    print(f"{len(fleet)} hosts, {len(flow.files)} tasks: lost 0, doubled 0, {len(panes)} panes as they were")
    _refuse_another_format(desk, newer)


def _refuse_another_format(desk: Host, newer: str) -> None:
    """A release with another format is refused, whatever is tried with it, before it does anything."""
    with_format(Path(newer), FORMAT + 1)
    desk.program = newer
    for words in (("up", "--detach", "--no-beat", "--no-flower"), ("run", "echo never")):
        refused = desk.torch(*words, code=1).stderr
        assert f"in format {FORMAT} (of Torch" in refused
        assert f"this Torch {NEWER} reads and writes format {FORMAT + 1} alone" in refused
    assert desk.survivors() == []
