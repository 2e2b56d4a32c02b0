"""What each node worker does at intervals, for its machine and for the whole fleet."""

from __future__ import annotations

import logging
import os
import signal

import redis

from torch_tasks.communication.orchestrator import flush_outbox
from torch_tasks.errors import NodeTaken, StaleWriter, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import Lifetime
from torch_tasks.orchestration.housekeeping import tend
from torch_tasks.orchestration.scaling import start_pool_agents
from torch_tasks.system.loops import Loop
from torch_tasks.tasks import recovery
from torch_tasks.tasks.dead_letters import DeadLetters
from torch_tasks.transport import LeaseKeeper
from torch_tasks.workers.host.accounts import tell_for_machine
from torch_tasks.workers.node.local_agents import LocalAgents
from torch_tasks.workers.node.node_presence import NodePresence

log = logging.getLogger(__name__)

_THOROUGH = 12
"""Every so many rounds all is looked at, not only what is known to be here."""


class NodeMaintenance:
    """Sends the node's heartbeat, keeps its roster and its pools right, and does the fleet's housekeeping."""

    def __init__(self, agents: LocalAgents, presence: NodePresence, fleet: Fleet) -> None:
        self._loop = Loop(
            "maintenance",
            self._take_care,
            pause=fleet.settings.heartbeat_seconds,
            expected=(TorchError, OSError, redis.RedisError),
        )
        self._rounds = 0
        self._agents = agents
        self._presence = presence
        self._fleet = fleet
        LeaseKeeper.on_return.append(self._restore_what_is_known_here)
        LeaseKeeper.on_buried.append(lambda task_id, _: DeadLetters(fleet).note_lost(task_id))

    def start(self) -> None:
        """Begin, until the node worker leaves."""
        self._loop.start()

    def stop(self) -> None:
        """The node worker leaves."""
        self._loop.stop()

    def _take_care(self) -> None:
        try:
            self._look(thoroughly=self._rounds % _THOROUGH == 0)
            self._rounds += 1
        except (StaleWriter, NodeTaken) as error:
            log.critical("%s; stopping", error)
            os.kill(os.getpid(), signal.SIGTERM)
            self._loop.stop()

    def _look(self, *, thoroughly: bool) -> None:
        self._presence.beat()
        self._fleet.registry.keep(self._agents.kept())
        self._agents.reconcile(thoroughly=thoroughly)
        if thoroughly and not self._presence.drained:
            self._fill_pools()
        tend(self._fleet)
        recovery.tend()
        flush_outbox(self._fleet)

    def _fill_pools(self) -> None:
        """Start what this machine's pools lack of their least number, on any node with room.

        Other machines may declare the same pools.
        """
        chosen = self._fleet.settings
        for pool in chosen.pools:
            if set(pool.labels) <= set(chosen.node_labels):
                started, refusal = start_pool_agents(pool, pool.min, pool.min, Lifetime.PERMANENT, self._fleet)
                log.debug("pool %s: started %s; %s", pool.name, started, refusal)

    def _restore_what_is_known_here(self) -> None:
        """The broker may have forgotten: what this machine's agents did, and what was enqueued here."""
        tell_for_machine(self._fleet)
        recovery.restore_all()
