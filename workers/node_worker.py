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
from celery import bootsteps

from torch_tasks.local import commands
from torch_tasks.local.processes import Processes, Running
from torch_tasks.models import AgentSpec
from torch_tasks.settings import Settings, settings

log = logging.getLogger(__name__)

#: How long an agent worker may take to let go of its pane.
_GRACE = 10.0


class KeepStep(bootsteps.StartStopStep):
    """Starts the agent workers with the node worker, and stops them with it."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, *, kept_agents: Sequence[AgentSpec], **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._keepers = [Keeper(agent, settings()) for agent in kept_agents]

    def start(self, worker: Any) -> None:
        """Start them all."""
        for keeper in self._keepers:
            keeper.start()

    def stop(self, worker: Any) -> None:
        """Stop them all; their panes live on."""
        for keeper in self._keepers:
            keeper.leaving.set()
        for keeper in self._keepers:
            keeper.join()

    terminate = stop


class Keeper(threading.Thread):
    """Keeps one agent worker alive: started, started again when it dies, left down when it does nothing but die."""

    def __init__(self, agent: AgentSpec, configuration: Settings) -> None:
        super().__init__(name=f"keeper {agent.id}", daemon=True)
        self.leaving = threading.Event()
        self._agent = agent
        self._settings = configuration
        self._processes = Processes(configuration.run_dir)
        self._name = f"agent-{agent.id}"
        self._crashes = 0

    def run(self) -> None:
        """Until the node worker leaves or the agent is in quarantine."""
        while not self.leaving.is_set():
            born = time.monotonic()
            worker = self._processes.find(self._name) or self._start()
            self._wait(worker)
            if self.leaving.is_set():
                break
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

    def _wait(self, worker: Running) -> None:
        """Return when the worker has ended, or this node worker is to leave."""
        while not self.leaving.is_set():
            process = worker.process()
            if process is None:
                log.warning("%s: agent worker %d has ended", self._agent.id, worker.pid)
                return
            try:
                process.wait(timeout=1)
            except psutil.TimeoutExpired:
                continue

    def _pause(self) -> float:
        """Longer after each crash, and not the same for all agents."""
        longest = self._settings.restart_backoff_limit_seconds
        pause: float = min(self._settings.restart_backoff_seconds * 2 ** (self._crashes - 1), longest)
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads restarts, keeps no secret
