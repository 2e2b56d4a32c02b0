"""The fleet that `torch-tasks deploy compose` writes, begun by its own script, each service on a host of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
from composed import Composed
from machine import Machine
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ASK = """
import sys, urllib.request as web
print(web.urlopen(web.Request(sys.argv[1], headers=eval(sys.argv[2])), timeout=9).status)
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Composed]:
    """The fleet after its first start."""
    if reason := hosts.why_not():
        pytest.skip(reason)
    writer = Machine()
    deployment = writer.folder / "fleet"
    writer.torch("deploy", "compose", "--nodes", "1", "--out", str(deployment))
    writer.torch("deploy", "secrets", "--out", str(deployment / "secrets"))
    fleet = Composed(deployment)
    try:
        fleet.script("first-start")
        yield fleet
    finally:
        fleet.close()
        writer.close()


def key_of(fleet: Composed, name: str) -> str:
    """The key with which a machine signs."""
    file = fleet.state(name) / "keys" / f"node-{name}.json"
    certificate: str = json.loads(file.read_text())["certificate"]
    return certificate


def test_a_task_from_another_host_ends_at_an_agent_of_a_node(fleet: Composed) -> None:
    said = fleet.run("server", "torch-tasks", "run", "--role", "developer", "--wait", "echo done by $TORCH_AGENT_ID")
    assert said == "done by developer-1\n"
    [agent] = json.loads(fleet.run("beat-1", "torch-tasks", "agents", "--json"))
    assert (agent["agent_id"], agent["node"]) == ("developer-1", "node-1")


def test_each_is_ready_and_one_beat_of_two_leads(fleet: Composed) -> None:
    for name, one in fleet.plan.items():
        assert fleet.run(name, *one["health"]) == ""  # as an engine asks
    led = [name for name in ("beat-1", "beat-2") if "this beat leads now" in Path(fleet.plan[name]["log"]).read_text()]
    assert len(led) == 1


def test_each_connects_as_its_own_user_and_nobody_as_the_administrator(fleet: Composed) -> None:
    connected = {one["user"] for one in fleet.client.client_list()} - {"default"}
    ran = {f"torch-{role}-{name}" for role, name in (("node", "root"), ("node", "node-1"), ("beat", "beat-1"))}
    assert connected >= ran | {"torch-beat-beat-2", "torch-server-server", "torch-viewer-server"}
    administrators = [one["addr"] for one in fleet.client.client_list() if one["user"] == "default"]
    by_network = [address for address in administrators if str(fleet.broker_host.folder) not in address]
    assert by_network == []  # this test itself asks at the broker's socket


def test_the_server_answers_other_hosts_and_flower_those_who_log_in(fleet: Composed) -> None:
    def ask(url: str, headers: dict[str, str], code: int = 0) -> str:
        return fleet.run("root", "python", "-c", ASK, url, repr(headers), code=code)

    assert ask("http://server:5556/readyz", {}) == "200\n"
    assert ask("http://node-1:5557/metrics", {}) == "200\n"
    token = (fleet.deployment / "secrets" / "prometheus-token").read_text().strip()
    assert ask("http://server:5556/metrics", {"Authorization": f"Bearer {token}"}) == "200\n"
    assert ask("http://server:5556/metrics", {}, code=1) == ""
    assert fleet.run("flower", "python", "-c", ASK, "http://127.0.0.1:5555/api/workers", "{}", code=1) == ""


def test_machines_without_a_node_worker_have_their_keys_renewed(fleet: Composed) -> None:
    before = {name: key_of(fleet, name) for name in ("beat-1", "beat-2", "server", "node-1")}
    fleet.run("root", "torch-tasks", "keys", "rotate", "--root")
    until(lambda: all(key_of(fleet, name) != key for name, key in before.items()), "all keys are renewed", 90)


def test_what_was_begun_is_begun_again_without_harm(fleet: Composed) -> None:
    before = (fleet.state("node-1") / "joined.json").read_text()
    fleet.script("first-start")
    assert (fleet.state("node-1") / "joined.json").read_text() == before
