"""Node workers and beats say at ``/healthz`` and ``/readyz`` whether they live and can do their jobs, or why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest
from beats import BeatMachine, leads
from faults import FaultyBroker, broker  # noqa: F401 - a fixture in the place of the session's
from nodes import Node
from waiting import until


def client_of(state: Path, name: str) -> httpx2.Client:
    """A client of the pages whose address stands in this file."""
    file = state / name
    until(file.exists, f"{name} is written")
    return httpx2.Client(base_url=json.loads(file.read_text())["url"], trust_env=False, timeout=30)


def reasons(client: httpx2.Client) -> list[str]:
    reply = client.get("/readyz")
    found: list[str] = reply.json()["reasons"]
    assert reply.json()["ready"] == (not found)
    assert reply.status_code == (503 if found else 200)
    return found


@pytest.fixture
def machine(broker: FaultyBroker) -> Iterator[BeatMachine]:  # noqa: F811
    machine = BeatMachine(broker)
    yield machine
    machine.close()


def test_a_machine_says_what_it_lacks_and_when_that_is_over(
    machine: BeatMachine,
    new_node: Callable[[str], Node],
    broker: FaultyBroker,  # noqa: F811
) -> None:
    beat = machine.beat(TORCH_METRICS_BEAT_PORT="0")
    until(lambda: leads(beat), "it leads", 60)
    node = new_node("node-a")
    node.node_worker("dev-1:developer", TORCH_METRICS_PORT="0", TORCH_RESTART_BACKOFF_SECONDS="4")
    with client_of(node.state, "metrics.json") as of_node, client_of(machine.folder / "beat", "beat.json") as of_beat:
        until(lambda: not reasons(of_node) and not reasons(of_beat), "both are ready", 60)

        broker.stop()
        for client in (of_node, of_beat):
            until(lambda client=client: "no broker answers" in "".join(reasons(client)), "it says so")
            assert client.get("/healthz").text == "ok\n"
        broker.start()
        until(lambda: not reasons(of_node) and not reasons(of_beat), "both are ready again", 60)

        beat.kill()
        with pytest.raises(httpx2.ConnectError):
            of_beat.get("/healthz")

        def is_said_of_one_that_dies_young() -> bool:
            if worker := node.kept_worker("dev-1"):
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
            return any("dev-1 is restarting" in one for one in reasons(of_node))

        until(is_said_of_one_that_dies_young, "it is said")
        until(lambda: not reasons(of_node), "the agent is there again", 60)
