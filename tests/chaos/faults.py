"""The faults: what they strike, how, for how long, and what must work again before they count as over."""

from __future__ import annotations

import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

import psutil

from chaos.fleet import AGENTS, Fleet
from chaos.oracle import FLEET, Strike

KILL, TERM, STOP = signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP
#: Between two faults, in seconds: enough for a busy machine to deliver something, too little to come to rest.
PAUSE = (0.3, 2.5)

Step = Callable[[Fleet], Strike | None]


@dataclass
class Fault(ABC):
    """A signal to a process ``at`` seconds after the beginning; what is stopped or away is back ``lasts`` later."""

    at: float
    lasts: float
    agent: str
    how: signal.Signals
    struck: psutil.Process | None = None

    part: ClassVar[str]
    """What is struck, in words."""
    longest: ClassVar[float] = 4.0
    """How long a stopped process stays stopped at most."""
    ended_by: ClassVar[frozenset[signal.Signals]] = frozenset()
    """The signals that end a task's effect together with the process: the task may start again, visibly."""

    @property
    def kind(self) -> str:
        return f"{self.part} {self.how.name}"

    @property
    def target(self) -> str:
        """What no second fault may strike meanwhile."""
        return self.part

    @property
    def recovered_by(self) -> str:
        """The agent, fleet or service whose recovery ends the fault; see :class:`chaos.oracle.Strike`."""
        return FLEET

    @abstractmethod
    def victim(self, fleet: Fleet) -> psutil.Process | None:
        """The process as it is now."""

    def steps(self) -> Iterator[tuple[float, Step]]:
        """What to do, and when."""
        yield self.at, self.strike
        yield self.at + self.lasts, self.heal

    def strike(self, fleet: Fleet) -> Strike | None:
        """Strike; None if the victim does not run just now."""
        victim = self.victim(fleet)
        if victim is None:
            return None
        before = time.time()
        try:
            victim.send_signal(self.how)
        except psutil.NoSuchProcess:
            return None
        self.struck = victim
        ended = self.agent if self.how in self.ended_by else None
        return Strike(self.kind, self.recovered_by, before, time.time(), ended)

    def heal(self, fleet: Fleet) -> None:
        """Undo what does not recover by itself."""
        if self.struck and self.how is STOP:
            with suppress(psutil.NoSuchProcess):
                self.struck.resume()


class AgentFault(Fault):
    """A signal to something that belongs to one agent."""

    @property
    def target(self) -> str:
        return self.agent

    @property
    def recovered_by(self) -> str:
        return self.agent


class WorkerFault(AgentFault):
    """The agent's worker; the pane works on."""

    part = "agent worker"
    longest = 12.0  # longer than TORCH_HUNG_SECONDS: some are taken for hung

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        return fleet.worker(self.agent)


class TerminalFault(AgentFault):
    """The agent's tmux server."""

    part = "tmux server"
    longest = 14.0  # longer than tmux is waited for
    ended_by = frozenset({KILL, TERM})

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        return fleet.terminal(self.agent)


class KeeperFault(AgentFault):
    """The program in the agent's pane."""

    part = "agent program"
    ended_by = frozenset({KILL, TERM})

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        return fleet.keeper(self.agent)


class ShellFault(AgentFault):
    """The shell that runs the agent's tasks."""

    part = "agent shell"
    ended_by = frozenset({KILL})  # at its prompt and in a task, an interactive shell takes no notice of SIGTERM

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        return fleet.shell(self.agent)


class ServiceFault(Fault):
    """A signal to what the machine's service manager keeps alive, which takes a moment to see that it is dead."""

    name: ClassVar[str]

    @property
    def recovered_by(self) -> str:
        return self.name

    def is_back(self, fleet: Fleet) -> bool:
        """Whether it runs again; no task passes through it, so none can show that."""
        process = fleet.process(self.name)
        if process is None or self.how is not STOP:
            return process not in (None, self.struck)
        return process.status() != psutil.STATUS_STOPPED

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        fleet.keep_away(self.name, self.lasts)
        return fleet.process(self.name)


class NodeFault(ServiceFault):
    """The node worker."""

    part = "node worker"
    name = "node"


class BeatFault(ServiceFault):
    """Beat."""

    part = "beat"
    name = "beat"


class WarmParentFault(Fault):
    """What the agents' workers are forked from; the next one to be started finds another, or is started without."""

    part = "warm parent"

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        return fleet.process("warm")


class BrokerFault(Fault):
    """The broker; it comes back with all its data."""

    part = "broker"

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        return fleet.broker.process

    def strike(self, fleet: Fleet) -> Strike | None:
        strike = super().strike(fleet)
        if self.how is not STOP:
            fleet.broker.end(self.how)
        # Only tasks that end after its next start show that it has recovered.
        return strike and replace(strike, after=strike.before + self.lasts)

    def heal(self, fleet: Fleet) -> None:
        super().heal(fleet)
        if not fleet.broker.process:
            self.restore(fleet)
            fleet.broker.start()

    def restore(self, fleet: Fleet) -> None:
        """Replace the data before the next start."""


class EmptyBrokerFault(BrokerFault):
    """The broker comes back without any data."""

    @property
    def kind(self) -> str:
        return "broker back empty"

    def restore(self, fleet: Fleet) -> None:
        fleet.broker.forget()


@dataclass
class PastBrokerFault(BrokerFault):
    """The broker comes back as it was some seconds before it was struck."""

    age: float = 0.0

    @property
    def kind(self) -> str:
        return "broker back in the past"

    def steps(self) -> Iterator[tuple[float, Step]]:
        yield self.at - self.age, self.prepare
        yield from super().steps()

    def prepare(self, fleet: Fleet) -> None:
        """Keep the data that it comes back with."""
        fleet.broker.snapshot()

    def restore(self, fleet: Fleet) -> None:
        fleet.broker.go_back()


# ── when what is struck ──────────────────────────────────────────────────────────────────────────────────────────

Maker = Callable[[random.Random, float, str], Fault]


def _signalled(cls: type[Fault], how: signal.Signals) -> Maker:
    def make(choose: random.Random, at: float, agent: str) -> Fault:
        longest = cls.longest if how is STOP else 3.0
        return cls(at, choose.uniform(0.3, longest), agent, how)

    return make


def _past_broker(choose: random.Random, at: float, agent: str) -> Fault:
    age = choose.uniform(0.5, 4.0)
    return PastBrokerFault(at + age, choose.uniform(0.2, 4.0), agent, KILL, age=age)


_PARTS = (WorkerFault, TerminalFault, KeeperFault, ShellFault, NodeFault, WarmParentFault, BeatFault, BrokerFault)
KINDS: dict[str, Maker] = {
    **{f"{part.part} {how.name}": _signalled(part, how) for part in _PARTS for how in (KILL, TERM, STOP)},
    "broker back empty": _signalled(EmptyBrokerFault, KILL),
    "broker back in the past": _past_broker,
}


def plan(seed: int, seconds: float, kinds: Sequence[str] = tuple(KINDS)) -> list[Fault]:
    """The faults of so many seconds: every kind equally often, in random order, no part struck twice at a time."""
    choose = random.Random(seed)
    faults: list[Fault] = []
    free_from: dict[str, float] = {}
    deck: list[str] = []
    at = choose.uniform(*PAUSE)
    while at < seconds:
        deck = deck or choose.sample(kinds, len(kinds))
        fault = KINDS[deck.pop()](choose, at, choose.choice(AGENTS))
        if free_from.get(fault.target, 0) <= at:
            faults.append(fault)
            free_from[fault.target] = fault.at + fault.lasts
        at += choose.uniform(*PAUSE)
    return faults
