"""The node worker: keeps this machine's agent workers alive."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import psutil
import redis
from celery import bootsteps

from torch_tasks import recovery
from torch_tasks.dead_letters import DeadLetters
from torch_tasks.errors import BrokerUnreachable, TorchError
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.local import commands
from torch_tasks.local.processes import Processes, Running
from torch_tasks.models import AgentSpec
from torch_tasks.orchestration.tending import tend
from torch_tasks.settings import Settings, settings
from torch_tasks.transport import Keeper as LeaseKeeper
from workers.accounts import tell_for_machine
from workers.pulse import Pulse

log = logging.getLogger(__name__)

#: How long an agent worker may take to let go of its pane.
_GRACE = 10.0


class KeepStep(bootsteps.StartStopStep):
    """Starts the agent workers with the node worker, and stops them with it."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, *, kept_agents: Sequence[AgentSpec], **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._keepers = [Keeper(agent, settings()) for agent in kept_agents]
        self._caretaker = Caretaker(self._keepers, fleet())

    def start(self, worker: Any) -> None:
        """Start them all."""
        for keeper in self._keepers:
            keeper.start()
        self._caretaker.start()

    def stop(self, worker: Any) -> None:
        """Stop them all; their panes live on."""
        self._caretaker.leaving.set()
        for keeper in self._keepers:
            keeper.leaving.set()
        for keeper in self._keepers:
            keeper.join()

    terminate = stop


class Caretaker(threading.Thread):
    """Does at intervals what somebody on this machine must do for the whole fleet, and for what was enqueued here."""

    def __init__(self, keepers: Sequence[Keeper], fleet: Fleet) -> None:
        super().__init__(name="caretaker", daemon=True)
        self.leaving = threading.Event()
        self._keepers = keepers
        self._fleet = fleet
        LeaseKeeper.on_return.append(self._tell_what_is_known_here)
        LeaseKeeper.on_buried.append(lambda task_id, _: DeadLetters(fleet).note_lost(task_id))

    def run(self) -> None:
        """Until the node worker leaves."""
        while True:
            try:
                self._fleet.registry.keep([keeper.agent_id for keeper in self._keepers if not keeper.in_quarantine])
                self._fleet.registry.keep_node(self._fleet.settings.node)
                tend(self._fleet)
                recovery.tend()
            except (TorchError, redis.RedisError) as error:
                log.warning("the fleet is not looked after: %s", error)
            if self.leaving.wait(self._fleet.settings.heartbeat_seconds):
                return

    def _tell_what_is_known_here(self) -> None:
        """The broker may have forgotten: what this machine's agents did, and what was enqueued here."""
        tell_for_machine(self._fleet)
        recovery.restore_all()


class Keeper(threading.Thread):
    """Keeps one agent worker alive: started, started again when it dies, left down when it does nothing but die."""

    def __init__(self, agent: AgentSpec, configuration: Settings) -> None:
        super().__init__(name=f"keeper {agent.id}", daemon=True)
        self.leaving = threading.Event()
        self._agent = agent
        self._settings = configuration
        self._processes = Processes(configuration.run_dir)
        self._name = f"agent-{agent.id}"
        self._pulse = Pulse(configuration.agent_dir(agent.id))
        self._crashes = 0
        self.in_quarantine = False

    @property
    def agent_id(self) -> str:
        """The agent whose worker is kept alive."""
        return self._agent.id

    def run(self) -> None:
        """Until the node worker leaves or the agent is in quarantine."""
        while not self.leaving.is_set():
            born = time.monotonic()
            worker = self._processes.find(self._name) or self._start()
            code = self._wait(worker, born)
            if self.leaving.is_set():
                break
            if code == BrokerUnreachable.exit_code:  # not the worker's fault, however long it lasts
                self.leaving.wait(self._settings.restart_backoff_seconds)
                continue
            if time.monotonic() - born >= self._settings.quarantine_healthy_seconds:
                self._crashes = 0
            self._crashes += 1
            if self._crashes >= self._settings.quarantine_crashes:
                log.error(
                    "%s: in quarantine after %d crashes in a row; the end of its log, %s:\n%s",
                    self._agent.id,
                    self._crashes,
                    worker.log,
                    worker.last_words(),
                )
                self.in_quarantine = True
                return
            self.leaving.wait(self._pause())
        self._processes.stop(self._name, _GRACE)

    def _start(self) -> Running:
        running = self._processes.start(
            self._name,
            commands.runnable(commands.agent_worker(self._agent)),
            log=self._settings.logs_dir / f"{self._name}.log",
            env=dict(os.environ),
        )
        log.info("%s: agent worker started, pid %d", self._agent.id, running.pid)
        return running

    def _wait(self, worker: Running, born: float) -> int | None:
        """Return when the worker has ended, with its exit code if that is known, or when this node worker leaves."""
        while not self.leaving.is_set():
            process = worker.process()
            if process is None:
                log.warning("%s: agent worker %d has ended", self._agent.id, worker.pid)
                return None
            try:
                code: int | None = process.wait(timeout=1)
                log.warning("%s: agent worker %d has ended with exit code %s", self._agent.id, worker.pid, code)
                return code
            except psutil.TimeoutExpired:
                if self._is_hung(born):
                    log.error("%s: agent worker %d shows no life, killing it", self._agent.id, worker.pid)
                    process.kill()
        return None

    def _is_hung(self, born: float) -> bool:
        limit = self._settings.hung_seconds
        return time.monotonic() - born > limit and self._pulse.silence() > limit

    def _pause(self) -> float:
        """Longer after each crash, and not the same for all agents."""
        longest = self._settings.restart_backoff_limit_seconds
        pause: float = min(self._settings.restart_backoff_seconds * 2 ** (self._crashes - 1), longest)
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads restarts, keeps no secret
