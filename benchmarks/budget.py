"""What Torch asks of the broker for one thing: numbers that no load of the machine changes.

Commands are counted as the server counts them, those inside scripts included. A round trip is one read of a client's
socket by the server: what a client sends in one pipeline counts once, unless it is so long that the server reads it
in parts, whose number the moment decides. So the round trips of what is that long are not counted.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis

from benchmarks.harness import Stage, await_true
from benchmarks.measures import Measure
from torch_tasks import keys
from torch_tasks.app import app
from torch_tasks.beat.scheduler import TorchScheduler
from torch_tasks.checkins.delivery import CheckinDelivery
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.checkin import At, Checkin, Target
from torch_tasks.model.fields import now
from torch_tasks.orchestration.housekeeping import chores

ENQUEUE = "enqueue"
MANY = "enqueue_many of 100 tasks"
TASK = "a task from take to end"
MESSAGE = "a message from send to acknowledged"
FIRE = "a check-in's fire"
HEARTBEAT = "a heartbeat"
IDLE = "an idle agent's minute"

COMMANDS = {ENQUEUE: 12, MANY: 1203, TASK: 87, MESSAGE: 56, FIRE: 111, HEARTBEAT: 7, IDLE: 180}
"""The most commands of each."""
ROUND_TRIPS = {ENQUEUE: 1, TASK: 17, MESSAGE: 7, FIRE: 19, HEARTBEAT: 1, IDLE: 70}
"""The most round trips of each."""
CONNECTIONS = 8
"""The most connections of an agent."""

QUIET_SECONDS = 0.15
"""After so long without a command, what was asked for is over."""
LONGEST_SECONDS = 20.0
_COUNTING = "info stats"
_WINDOW_SECONDS = 5.0
"""So often an agent sends its heartbeat."""
_TASK_ENDS = ("→ hdel", "publish /0.celeryev/task.multi")
_MESSAGE_ENDS = "→ xack"
"""What is asked for last, whatever the pace of the machine."""


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Each thing several times, and of those the least: heartbeats and the like that fall due meanwhile only add."""
    watch, costs = Watch(fleet().client), dict[str, Cost]()
    with watch.listening():
        with stage.agents(1) as (agent,):
            costs[IDLE] = _idle(watch, 3 if quick else 20)
            costs |= _acts(stage, watch, agent.id, 3 if quick else 25)
            connections = _connections()
        connections -= _connections()
        costs[FIRE] = _fire(watch, 3 if quick else 25)
    found = [Measure("connections of one agent", connections, "", goal=CONNECTIONS)]
    for name, cost in costs.items():
        found.append(Measure(f"{name}: commands", cost.commands, "", goal=COMMANDS[name]))
        if name in ROUND_TRIPS:
            found.append(Measure(f"{name}: round trips", cost.round_trips, "", goal=ROUND_TRIPS[name]))
    return found if quick else [*found, *_details(costs)]


def _idle(watch: Watch, windows: int) -> Cost:
    """The agent's minute, from the quietest of some windows; this process keeps house in the place of a node worker."""
    names = [chore.name for chore in chores(None)]

    def window() -> Cost:
        fleet().client.hset(keys.HOUSEKEEPING, mapping=dict.fromkeys(names, time.time()))
        return watch.cost_of_time(_WINDOW_SECONDS)

    cost = min((window() for _ in range(windows)), key=lambda cost: cost.commands)
    return cost.times(60 / _WINDOW_SECONDS)


def _acts(stage: Stage, watch: Watch, agent_id: str, times: int) -> Iterator[tuple[str, Cost]]:
    nova, info = NovaOrchestrator(), fleet().registry.get_agent(agent_id)
    enqueue = watch.least(times, lambda: stage.torch.enqueue(":", role="nobody"))
    yield ENQUEUE, enqueue
    yield MANY, watch.least(times, lambda: stage.torch.enqueue_many([{"prompt": ":", "role": "nobody"}] * 100))
    task = watch.least(times, lambda: stage.torch.enqueue(":", agent=agent_id), *_TASK_ENDS)
    yield TASK, task.less(enqueue)
    yield MESSAGE, watch.least(times, lambda: nova.send_message(agent_id, ": look"), _MESSAGE_ENDS)
    yield HEARTBEAT, watch.least(times, lambda: fleet().registry.heartbeat(info))


def _fire(watch: Watch, times: int) -> Cost:
    """A turn of beat with one check-in due, and its delivery to an inbox; Celery's way between them is not in it."""
    receiver = fleet().registry.register(_RECEIVER, holder_is_gone=True)
    asked = Checkin(
        id="budget",
        note="look at the build",
        target=Target(agent=receiver.agent_id),
        schedule=At(at=now() + timedelta(days=1)),
        sender="operator",
    )
    fleet().checkins.add_all([asked])
    scheduler = TorchScheduler(app, lazy=True)
    scheduler._turn()

    def fire() -> None:
        fleet().checkins.run_now(asked.id)
        scheduler._turn()
        CheckinDelivery(fleet(), asked, now(), 0.0, lambda spec: None).deliver()

    cost = watch.least(times, fire)
    scheduler.close()
    return cost


_RECEIVER = AgentInfo(
    agent_id="receiver",
    role="receiver",
    kind="shell",
    node="here",
    pid=1,
    host="here",
    incarnation=0,
    state=AgentState.READY,
    workdir="/tmp",
    tmux_socket="/tmp/none",
    started_at=now(),
)


def _details(costs: Mapping[str, Cost]) -> Iterator[Measure]:
    """Which commands they are: a client's with its first key, a script's after an arrow."""
    for name, cost in costs.items():
        for asked, times in sorted(cost.asked.items(), key=lambda one: -one[1]):
            yield Measure(f"{name}: {asked}", times, "")


def _connections() -> int:
    client: Any = fleet().client
    return int(client.info("clients")["connected_clients"])


@dataclass(frozen=True)
class Cost:
    """What one thing asks of the broker."""

    commands: float
    round_trips: float
    asked: Mapping[str, float]
    """How often each command was run."""

    def times(self, factor: float) -> Cost:
        """So many times as much."""
        asked = {name: factor * times for name, times in self.asked.items()}
        return Cost(factor * self.commands, factor * self.round_trips, asked)

    def less(self, part: Cost) -> Cost:
        """What is asked besides."""
        asked = {name: times - part.asked.get(name, 0) for name, times in self.asked.items()}
        return Cost(self.commands - part.commands, self.round_trips - part.round_trips, asked)


class Watch:
    """Counts what reaches the broker; between two counts, nobody else may ask it for anything."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._heard_at = time.monotonic()
        self._asked: Counter[str] = Counter()
        self._is_over = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Have the broker name each command that it runs, until this ends."""
        with self._client.monitor() as monitor:
            listener = threading.Thread(target=self._listen, args=[monitor], daemon=True)
            listener.start()
            try:
                yield
            finally:
                self._is_over.set()
                listener.join()

    def least(self, times: int, action: Callable[[], object], *until: str) -> Cost:
        """What the action and all that it sets off ask for, these commands among it; what falls due meanwhile adds."""
        self._cost(action, until)  # what is asked for once: scripts are loaded, connections made
        return min((self._cost(action, until) for _ in range(times)), key=lambda cost: cost.commands)

    def cost_of_time(self, seconds: float) -> Cost:
        """What is asked for in so long."""
        before = self._begin()
        time.sleep(seconds)
        return self._end(before)

    def _cost(self, action: Callable[[], object], until: Sequence[str]) -> Cost:
        self._await_quiet()
        before = self._begin()
        action()
        self._heard_at = time.monotonic()
        await_true(lambda: all(self._asked[name] for name in until), LONGEST_SECONDS, f"{until} was asked for")
        self._await_quiet()
        return self._end(before)

    def _begin(self) -> tuple[int, int]:
        counted = self._counted()
        self._asked.clear()
        return counted

    def _end(self, before: tuple[int, int]) -> Cost:
        commands, reads = self._counted()
        # Both counts have the second asking for them in it.
        return Cost(commands - before[0] - 1, reads - before[1] - 1, dict(self._asked))

    def _await_quiet(self) -> None:
        quiet = lambda: time.monotonic() - self._heard_at > QUIET_SECONDS  # noqa: E731
        await_true(quiet, LONGEST_SECONDS, "nobody asks the broker for anything")

    def _counted(self) -> tuple[int, int]:
        stats = self._client.info("stats")
        return int(stats["total_commands_processed"]), int(stats["total_reads_processed"])

    def _listen(self, monitor: Any) -> None:
        while not self._is_over.is_set():
            if monitor.connection.can_read(timeout=0.05):  # a read that times out would end the connection
                heard = monitor.next_command()
                if heard["command"].lower() != _COUNTING:
                    self._asked[_name(heard["command"], heard["client_type"] == "lua")] += 1
                    self._heard_at = time.monotonic()


def _name(command: str, is_inside: bool) -> str:
    words = command.split()
    name = words[0].lower()
    if is_inside:
        return f"→ {name}"
    return " ".join([name, *words[3:4]] if name == "evalsha" else [name, *words[1:2]])
