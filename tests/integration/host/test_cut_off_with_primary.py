"""An agent that is cut off together with the primary takes a task there, and begins it only when the fleet knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos.fleet import QUICK
from hosts import Host, Wire, why_not
from replicas import QUICK_MS, SERVER, SLOW_MS, WATCHER, Process, is_in_step, know_all, set_patience, url_of, watched
from waiting import until

from torch_tasks import keys

SECONDS = 60.0


class CutFleet(Wire):
    """A host with the primary, a Sentinel and an agent; another one with the replica and most of the Sentinels."""

    def __init__(self) -> None:
        super().__init__()
        self.west, self.east = self.add("west", **QUICK), self.add("east", **QUICK)
        self.primary, self.replica = (self._process(host, "server", SERVER) for host in self.hosts)
        self.sentinels = [
            self._process(host, f"sentinel-{number}", WATCHER, "--sentinel", **watched(self.primary))
            for number, host in enumerate((self.west, self.east, self.east))
        ]

    def _process(self, host: Host, folder: str, text: str, *options: str, **values: object) -> Process:
        return Process(host.folder / folder, host.env, text, *options, host=host.address, enter=host.enter, **values)

    def start(self) -> None:
        """Have the agent be ready."""
        self.primary.start()
        self.replica.start("--replicaof", "{} {}".format(*self.primary.place))
        until(lambda: is_in_step(self.replica), "the replica is in step", SECONDS)
        for one in self.sentinels:
            one.start()
        until(lambda: know_all(self.sentinels), "the Sentinels know both servers and each other", SECONDS)
        set_patience(self.sentinels, SLOW_MS)  # so the host stays with a primary that is cut off, too
        self.west.env["TORCH_BROKER_URL"] = url_of(self.sentinels)
        self.west.up("dev:developer")

    def said(self) -> str:
        """What the logs of the first host say."""
        return "\n".join(log.read_text() for log in sorted((self.west.state / "logs").glob("*.log")))

    def close(self) -> None:
        for one in (*self.sentinels, self.primary, self.replica):
            one.end()
        super().close()


@pytest.fixture
def fleet_on_two_hosts() -> Iterator[CutFleet]:
    """The fleet, with an agent that is ready."""
    if reason := why_not():
        pytest.skip(reason)
    fleet = CutFleet()
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.close()


@pytest.mark.timeout(240)
def test_a_task_that_only_the_cut_off_primary_knows_is_begun_when_the_cut_is_over(fleet_on_two_hosts: CutFleet) -> None:
    fleet, record = fleet_on_two_hosts, keys.task_record("alone")
    begun = fleet.west.folder / "begun"

    def state(server: Process) -> str | None:
        return server.client.hget(record, "state")

    with fleet.west.cut_off():
        fleet.west.torch("run", "--agent", "dev", "--id", "alone", f"echo begun >>{begun}")
        until(
            lambda: state(fleet.primary) == "assigned",
            "the agent has taken it from the primary that is cut off",
            SECONDS,
        )
        until(
            lambda: "task alone is not begun: that dev has task alone is known to" in fleet.said(), "it waits", SECONDS
        )
        set_patience(fleet.sentinels[1:], QUICK_MS)
        until(lambda: fleet.replica.client.info("replication")["role"] == "master", "the replica is promoted", SECONDS)
        assert state(fleet.primary) == "assigned"
        assert not begun.exists()
    until(lambda: state(fleet.replica) == "succeeded", "the task is done where the fleet is now", SECONDS)
    assert begun.read_text() == "begun\n"
