"""Messages between 20 agents whose receivers are killed at random: how many are lost, or come twice.

The receivers run an agent worker's own inbox, letters and mail, but write what they read to a file instead of a pane
(``benchmarks/message_receiver.py``): 20 real workers would be the machine's measure, not the messages'. Every kill is a
SIGKILL, at once followed by a new process. ``BENCH_MESSAGES`` says how many messages (default: 100,000; quick: 2,000).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.harness import READY_SECONDS, ROOT, Stage, await_true
from benchmarks.measures import Measure
from torch_tasks.fleet import fleet

AGENTS = tuple(f"reader-{number}" for number in range(1, 21))
SENDERS = 4
PATIENCE_SECONDS = 120.0
_SENDER = """
import random, sys, time
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.errors import InboxFull
agents, mine, count, dice = sys.argv[1].split(","), sys.argv[2].split(","), int(sys.argv[3]), random.Random(sys.argv[2])
voices = [NovaOrchestrator(name) for name in mine]
for number in range(count):
    voice = dice.choice(voices)
    target = dice.choice([name for name in agents if name != voice.sender])
    while True:
        try:
            voice.send_message(target, f"{voice.sender} {number}", id=f"{voice.sender}.{number}")
            break
        except InboxFull:
            time.sleep(0.1)
    print(f"{voice.sender}.{number} {target}", flush=True)
"""


class Readers:
    """The receivers, and the files into which they read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kills = self.ended = 0
        self._running = {agent_id: self._start(agent_id) for agent_id in AGENTS}

    def kill_one(self, dice: random.Random) -> None:
        """Kill one of them, whatever it does, and have it back."""
        agent_id = dice.choice(AGENTS)
        self._running[agent_id].kill()
        self._running[agent_id].wait()
        self._running[agent_id] = self._start(agent_id)
        self.kills += 1

    def revive(self) -> None:
        """Have those back that ended by themselves, as a node worker does."""
        for agent_id, process in self._running.items():
            if process.poll() is not None:
                self._running[agent_id] = self._start(agent_id)
                self.ended += 1

    def read(self, agent_id: str) -> list[str]:
        """The ids of what this one has read, in its order."""
        file = self._file(agent_id)
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []

    def close(self) -> None:
        """End them all."""
        for process in self._running.values():
            process.kill()
            process.wait()

    def _file(self, agent_id: str) -> Path:
        return self._folder / f"{agent_id}.read"

    def _start(self, agent_id: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "benchmarks.message_receiver", agent_id, str(self._file(agent_id))]
        with (self._folder / f"{agent_id}.log").open("ab") as log:
            return subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log)


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """One storm."""
    count, dice = int(os.environ.get("BENCH_MESSAGES", 2_000 if quick else 100_000)), random.Random()
    folder = stage.folder / "storm"
    folder.mkdir()
    readers = Readers(folder)
    try:
        await_true(lambda: _online() >= len(AGENTS), READY_SECONDS, "all readers are there")
        begun = time.monotonic()
        senders = [_send(folder, number, count // SENDERS) for number in range(SENDERS)]
        while any(sender.poll() is None for sender in senders):
            time.sleep(dice.uniform(1, 4))
            readers.revive()
            readers.kill_one(dice)
        sent = _sent(folder)
        wanted, quiet_since, had = count // SENDERS * SENDERS, time.monotonic(), -1
        while (now := sum(len(set(readers.read(name))) for name in AGENTS)) < len(sent):
            quiet_since, had = (time.monotonic(), now) if now != had else (quiet_since, had)
            if time.monotonic() - quiet_since > PATIENCE_SECONDS:
                break
            readers.revive()
            time.sleep(0.5)
        took = time.monotonic() - begun
        return _counted(readers, sent, wanted, took)
    finally:
        readers.close()


def _online() -> int:
    return sum(info.online and info.agent_id in AGENTS for info in fleet().registry.agents())


def _send(folder: Path, number: int, count: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", _SENDER, ",".join(AGENTS), ",".join(AGENTS[number::SENDERS]), str(count)]
    with (folder / f"sender-{number}.sent").open("wb") as sent, (folder / f"sender-{number}.log").open("wb") as log:
        return subprocess.Popen(argv, cwd=ROOT, stdout=sent, stderr=log)


def _sent(folder: Path) -> dict[str, str]:
    """The accepted messages' ids and receivers."""
    lines = [line for file in folder.glob("*.sent") for line in file.read_text().splitlines()]
    return dict(line.split() for line in lines)  # type: ignore[misc]


def _counted(readers: Readers, sent: dict[str, str], wanted: int, took: float) -> list[Measure]:
    read = {name: readers.read(name) for name in AGENTS}
    counts = Counter((name, message_id) for name, ids in read.items() for message_id in ids)
    lost = sum((target, message_id) not in counts for message_id, target in sent.items())
    astray = sum(sent.get(message_id) != name for name, message_id in counts)
    return [
        Measure("accepted", len(sent), "messages", goal=wanted, direction="≥"),
        Measure("receivers killed", readers.kills, "times"),
        Measure("receivers that ended by themselves", readers.ended, "times"),
        Measure("lost", lost, "messages", goal=0),
        Measure("doubled", sum(number > 1 for number in counts.values()), "messages", goal=0),
        Measure("read by another than it was for", astray, "messages", goal=0),
        Measure("out of its sender's order", sum(map(_disorder, read.values())), "messages", goal=0),
        Measure("from the first send to the last read", took, "s"),
        Measure("throughput", len(sent) / took, "messages/s"),
    ]


def _disorder(ids: list[str]) -> int:
    """How many of these came after a later one of the same sender."""
    latest: dict[str, int] = {}
    late = 0
    for message_id in dict.fromkeys(ids):
        sender, number = message_id.rsplit(".", 1)
        late += int(number) < latest.get(sender, -1)
        latest[sender] = max(latest.get(sender, -1), int(number))
    return late
