"""What makes a Celery worker the node worker: it keeps this machine's agents alive, and looks after the fleet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import redis
from celery import bootsteps

from torch_tasks.app import app
from torch_tasks.caller import leave_pane
from torch_tasks.errors import BrokerUnreachable, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentSpec
from torch_tasks.workers.git.discipline import Discipline
from torch_tasks.workers.node.local_agents import LocalAgents, Roster
from torch_tasks.workers.node.maintenance import NodeMaintenance
from torch_tasks.workers.node.node_presence import NodePresence
from torch_tasks.workers.node.notifier import Notifier

log = logging.getLogger(__name__)


def host_node(declared: Sequence[AgentSpec]) -> None:
    """Be this machine's node worker, from now on; or refuse with a named error."""
    leave_pane()  # a node worker that is started from an agent's pane is not that agent
    agents = LocalAgents(Roster(fleet().settings.state_dir / "roster.json", declared), fleet())
    presence = NodePresence(fleet(), agents.reports)
    try:
        presence.enter()
    except (BrokerUnreachable, redis.RedisError) as error:
        log.warning("the fleet does not know of this node yet: %s", error)
    agents.on_change = presence.beat
    app.node = agents
    NodeStep.agents, NodeStep.presence = agents, presence
    app.steps["worker"].add(NodeStep)


class NodeStep(bootsteps.StartStopStep):
    """Starts the agent workers with the node worker, and stops them with it."""

    requires = ("celery.worker.components:Pool",)
    agents: LocalAgents
    presence: NodePresence

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._maintenance = NodeMaintenance(self.agents, self.presence, fleet())
        self._discipline = Discipline(self.agents.kept, fleet())
        command = fleet().settings.notify_command
        self._notifier = Notifier(command, fleet()) if command else None

    def start(self, worker: Any) -> None:
        """Start them all."""
        self.agents.start()
        self._maintenance.start()
        self._discipline.start()
        if self._notifier:
            self._notifier.start()

    def stop(self, worker: Any) -> None:
        """Stop them all; their panes live on."""
        self._maintenance.stop()
        self._discipline.stop()
        if self._notifier:
            self._notifier.stop()
        self.agents.stop()
        with contextlib.suppress(TorchError, redis.RedisError):
            self.presence.leave()

    terminate = stop
