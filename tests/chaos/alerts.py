"""Records what a fleet's metrics were while it was really broken, as the tests of the alerts.

``PYTHONPATH=tests python -m chaos.alerts record FOLDER`` breaks a fleet in every way that an alert tells of, for 23
minutes, with Prometheus and the alerts before it; it needs the right to mount a small disk (``unshare -rm``).
``… write FOLDER`` makes compose/monitoring/alerts_test.yml of what Prometheus has kept there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import click
from beats import BeatMachine
from clients import client_of
from fake_kind import FakeKind
from fakes.cli.scenario import Faults, Scenario, Turn
from fakes.cli.steps import Permission, Say
from faults import FaultyBroker
from issued import Authority
from machine import short_folder
from nodes import Node
from prometheus import MONITORING, Prometheus, free_port, prometheus
from served import served
from waiting import until

from chaos.recorded import EVENTS, Event, write
from torch_tasks.client import Task
from torch_tasks.fleet import fleet
from torch_tasks.tasks.dead_letters import DeadLetters

PACE = "5s"
DISK = "256m"
CALLS = 10
MINUTE = 60.0
END_MINUTES = 23.0

Act = Callable[[], None]


class Broken:
    """A fleet of two machines, a server and a beat, and the faults that strike it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder = folder
        self.broker = FaultyBroker(keeps_every_write=True)
        stack.callback(self.broker.close)
        self.torch = stack.enter_context(client_of(self.broker, short_folder()))
        self.authority = Authority(folder, "authority")
        self.nodes = {name: Node(name, self.broker, self.torch) for name in ("node-a", "node-b")}
        stack.enter_context(small_disk(self.nodes["node-b"].state))
        for node in self.nodes.values():
            stack.callback(node.close)
        self.ports = {name: free_port() for name in self.nodes}
        self.server = stack.enter_context(served(self.broker, TORCH_NODE="node-a"))
        self.certificate = folder / "certificate.pem"
        self.put_certificate(timedelta(days=30))
        self.start_node("node-a", "dev-1:developer", "qa-1:qa")
        self.start_node("node-b", "dev-2:developer")
        beats = BeatMachine(self.broker, "node-a", TORCH_STATE_DIR=str(self.nodes["node-a"].state))
        stack.callback(beats.close)
        self.beat = beats.start("beat", "beat")
        self.asking = self.fake("asking", Scenario(default=Turn(steps=(Permission(), Say()))))
        self.calling = self.fake("calling", Scenario())
        self.losing = self.fake("losing", Scenario(), hooks=False)
        self.tasks: dict[str, Task] = {}

    def start_node(self, name: str, *agents: str) -> None:
        port = str(self.ports[name])
        own = {"TORCH_SERVER_CERTIFICATE": str(self.certificate)} if name == "node-b" else {}
        self.nodes[name].node_worker(*agents, TORCH_METRICS_PORT=port, **own)

    def fake(self, name: str, scenario: Scenario, *, hooks: bool = True) -> FakeKind:
        account = "claude" if hooks else "other"
        kind = FakeKind(self.nodes["node-a"], name=name, account=account, scenario=scenario, hooks=hooks)
        kind.worker(name, "writer")
        return kind

    def scrapes(self) -> dict[str, dict[str, object]]:
        token = self.folder / "token"
        token.write_text(self.server.token("prometheus", "viewer"))
        nodes = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": f"{name}:5557"}}
            for name, port in self.ports.items()
        ]
        server = {"targets": [f"127.0.0.1:{self.server.port}"], "labels": {"instance": "server:5556"}}
        return {
            "torch-nodes": {"static_configs": nodes},
            "torch-server": {"authorization": {"credentials_file": str(token)}, "static_configs": [server]},
        }

    # ── what strikes, and what mends ─────────────────────────────────────────────────────────────────────────────

    def ask(self) -> None:
        self.tasks["asks"] = self.torch.enqueue("tidy up", agent="asking")

    def answer(self) -> None:
        self.tasks["asks"].answer("Yes")

    def want_nobody(self) -> None:
        self.tasks["nobody"] = self.torch.enqueue("echo nobody", role="nobody")

    def want_nobody_no_more(self) -> None:
        self.tasks["nobody"].cancel()

    def keep_checkins(self) -> None:
        self.torch.checkins.add("every 1m", "echo checked in", "dev-1", misfire="skip")

    def hang_beat(self) -> None:
        self.beat.process.send_signal(signal.SIGSTOP)

    def resume_beat(self) -> None:
        self.beat.process.send_signal(signal.SIGCONT)

    def lose_a_prompt(self) -> None:
        self.losing.cli.play(Scenario(faults=Faults(lose_prompts=1)))
        self.torch.enqueue("where am I", agent="losing")

    def kill_tasks(self) -> None:
        for number in range(2):
            task = self.torch.enqueue("kill -9 $PPID $$", role="developer", max_retries=0)
            self.tasks[f"dead {number}"] = task

    def drop_dead(self) -> None:
        for number in range(2):
            DeadLetters(fleet()).drop(self.tasks[f"dead {number}"].id)

    def kill_again_and_again(self) -> None:
        node = self.nodes["node-a"]

        def quarantined() -> bool:
            if worker := node.kept_worker("qa-1"):
                worker.kill()
            kept = node.node_workers[-1].kept("qa-1")
            return kept is not None and kept.state == "quarantined"

        until(quarantined, "qa-1 is in quarantine", 2 * MINUTE)

    def release(self) -> None:
        self.torch.release("qa-1")

    def call_until(self, calls: int) -> None:
        """Prompts cost calls; each is one."""
        while self.used() < calls:
            self.torch.enqueue("write on", agent="calling").result(MINUTE)

    def used(self) -> float:
        budgets = fleet().budgets
        return next((one.used for one in budgets.lines(["claude"]) if one.name == "calls_per_day"), 0.0)

    def fill_disk(self) -> None:
        with suppress(OSError), (self.nodes["node-b"].state / "filler").open("wb") as file:
            for _ in range(246):
                file.write(b"x" * (1 << 20))
                file.flush()

    def empty_disk(self) -> None:
        (self.nodes["node-b"].state / "filler").unlink()

    def put_certificate(self, lasts: timedelta) -> None:
        self.authority.issue("server", lasts).rename(self.certificate)

    def kill_node(self) -> None:
        self.nodes["node-b"].node_workers[-1].kill()

    def start_node_again(self) -> None:
        self.start_node("node-b", "dev-2:developer")

    def fill_broker(self) -> None:
        client = self.broker.client
        known = client.info("memory")
        client.config_set("maxmemory", known["used_memory"] + (64 << 20))
        for number in range(54):
            client.set(f"filler-{number}", "x" * (1 << 20))

    def empty_broker(self) -> None:
        self.broker.client.delete(*(f"filler-{number}" for number in range(54)))

    def events(self) -> list[tuple[Event, Act, Act | None]]:
        """What happens, from which minute until which one, and whether it is mended then."""
        return [
            (Event(("TorchPersonWaitedFor",), "an agent's question is answered late", 0.5, 17), self.ask, self.answer),
            (
                Event(("TorchTasksUnroutable",), "a task asks for a role that nobody has", 0.5, 12),
                self.want_nobody,
                self.want_nobody_no_more,
            ),
            (Event((), "a check-in every minute", 0.3, 0), self.keep_checkins, None),
            (Event(("TorchUnknownDelivery",), "a program loses a prompt", 1, 1), self.lose_a_prompt, None),
            (
                Event(("TorchNoBeat", "TorchCheckinsLate"), "the only beat hangs", 1.5, 5),
                self.hang_beat,
                self.resume_beat,
            ),
            (Event(("TorchCheckinsMissed",), "slots passed while the only beat hung", 4.9, 5), lambda: None, None),
            (
                Event(("TorchDeadLetters",), "two tasks kill their agents' programs", 5.5, 8),
                self.kill_tasks,
                self.drop_dead,
            ),
            (
                Event(("TorchAgentQuarantined",), "an agent worker is killed again and again", 5.6, 8.5),
                self.kill_again_and_again,
                self.release,
            ),
            (
                Event(("TorchBudgetNearlyUsed",), "8 of 10 calls are used", 9, 11.5),
                lambda: self.call_until(8),
                lambda: self.call_until(CALLS),
            ),
            (Event(("TorchBudgetUsedUp",), "10 of 10 calls are used", 11.5, 99), lambda: None, None),
            (Event(("TorchDiskNearlyFull",), "something fills the disk", 9.2, 12), self.fill_disk, self.empty_disk),
            (
                Event(
                    ("TorchCertificateEnds",), "a certificate of six days takes the place of the server's", 9.4, 11.8
                ),
                lambda: self.put_certificate(timedelta(days=6)),
                lambda: self.put_certificate(timedelta(days=30)),
            ),
            (
                Event(("TorchNodeSilent", "TorchNotScraped"), "a node worker is killed", 12.5, 16.2),
                self.kill_node,
                self.start_node_again,
            ),
            (
                Event(("TorchBrokerMemoryShort",), "something fills the broker", 12.7, 15.5),
                self.fill_broker,
                self.empty_broker,
            ),
            (
                Event(("TorchBrokerUnreachable",), "the broker is killed", 18.5, 20.5),
                self.broker.kill,
                self.broker.start,
            ),
        ]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def strike(broken: Broken, seen: Prometheus, begun: float) -> list[Event]:
    """Do all of it, each at its time; returns what happened when, in seconds since 1970."""
    events = broken.events()
    steps: list[tuple[float, str, Act]] = []
    for event, act, mend in events:
        steps.append((event.begun, event.fault, act))
        if mend:
            steps.append((event.over, f"over: {event.fault}", mend))
    for at, what, act in sorted(steps, key=lambda step: step[0]):
        time.sleep(max(0.0, begun + at * MINUTE - time.time()))
        print(f"{time.strftime('%H:%M:%S')} {what}; firing: {', '.join(sorted(seen.firing()))}", flush=True)
        try:
            act()
        except Exception as error:  # the other faults are worth the time
            print(f"FAILED: {error!r}", flush=True)
    time.sleep(max(0.0, begun + END_MINUTES * MINUTE - time.time()))
    return [event.at(begun) for event, *_ in events]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def record(folder: Path) -> None:
    """Break a fleet, and keep what Prometheus saw."""
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda number, _: exit(128 + number))
    budgets = json.dumps({"claude": {"calls_per_day": CALLS}})
    os.environ.update(TORCH_KEYS_DIR=str(folder / "keys"), TORCH_SIGNING="enforce", TORCH_BUDGETS=budgets)
    with ExitStack() as stack:
        broken = Broken(stack, folder)
        rules = (MONITORING / "alerts.yml").read_text()
        seen = stack.enter_context(prometheus(folder, rules, broken.scrapes(), PACE))
        begun = time.time()
        found = strike(broken, seen, begun)
        (folder / EVENTS).write_text(json.dumps([event._asdict() for event in found]))


main.add_command(write)

if __name__ == "__main__":
    main()
