"""What makes a Celery worker the node worker: it keeps this machine's agents alive, and does housekeeping."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from typing import Any

from celery import bootsteps

from torch_tasks.app import app
from torch_tasks.caller import leave_pane
from torch_tasks.communication.messenger import flush_outbox
from torch_tasks.errors import BrokerAway, NodeTaken, StaleWriter, TorchError
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.link.courier import couriers
from torch_tasks.machine.fleet_keys import require_own_fleet
from torch_tasks.model.agent import AgentSpec, Lifetime
from torch_tasks.monitoring.readiness import ReadinessProbe, lacks_of_node
from torch_tasks.monitoring.service_manager import notice_loops
from torch_tasks.orchestration.channels import senders
from torch_tasks.orchestration.housekeeping import run_if_overdue
from torch_tasks.orchestration.notifying import Notifier
from torch_tasks.orchestration.scaling import start_pool_agents
from torch_tasks.security.audit import note_event
from torch_tasks.state_folder import TMUX, require_short
from torch_tasks.system.loops import Loop
from torch_tasks.system.tally import NODE, keep_tally_of
from torch_tasks.tasks import recovery
from torch_tasks.tasks.dead_letters import DeadLetters, note_refused
from torch_tasks.workers.git.discipline import GitDiscipline
from torch_tasks.workers.host.put_back import put_back_for_machine
from torch_tasks.workers.node.audit_keeper import AuditKeeper
from torch_tasks.workers.node.backup_keeper import BackupKeeper
from torch_tasks.workers.node.keys_keeper import KeysKeeper
from torch_tasks.workers.node.local_agents import LocalAgents, Roster
from torch_tasks.workers.node.machine_pages import machine_pages
from torch_tasks.workers.node.node_presence import NodePresence
from torch_tasks.workers.node.rollup_keeper import RollupKeeper
from torch_tasks.workers.node.span_sender import SpanSender

log = logging.getLogger(__name__)

_THOROUGH = 12
"""One of so many rounds compares the roster with the whole fleet, not only with the agents known to be here."""
_LOGS_OF_TASKS = ("celery.worker.strategy", "celery.app.trace")


def _leave_out_housekeeping(record: logging.LogRecord) -> bool:
    """A log filter: the task that beat sends every few seconds would fill the log."""
    args = record.args
    return record.levelno > logging.INFO or not (isinstance(args, dict) and args.get("name") == "torch.housekeeping")


def host_node(declared: Sequence[AgentSpec]) -> None:
    """Be this machine's node worker, from now on; or refuse with a named error."""
    for agent in declared:
        require_short(fleet().settings.state.agent(agent.id) / TMUX)
    fleet().settings.state.require_whole()
    require_own_fleet(fleet())
    keep_tally_of(NODE, fleet().settings.state)
    leave_pane()  # a node worker that is started from an agent's pane is not that agent
    agents = LocalAgents(Roster(fleet().settings.state.roster, declared), fleet())
    presence = NodePresence(fleet(), agents.reports)
    try:
        presence.enter()
    except BrokerAway as error:
        log.warning("this node is not registered yet: %s", error)
    agents.on_change = presence.beat
    app.node = agents
    for name in _LOGS_OF_TASKS:
        logging.getLogger(name).addFilter(_leave_out_housekeeping)
    NodeStep.agents, NodeStep.presence = agents, presence
    app.steps["worker"].add(NodeStep)


class NodeStep(bootsteps.StartStopStep):
    """Starts the agent workers and the loops of this node with the node worker, and stops them with it."""

    requires = ("celery.worker.components:Pool",)
    agents: LocalAgents
    presence: NodePresence

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        discipline = GitDiscipline(self.agents.kept, fleet())
        self._audit = AuditKeeper(fleet())
        self._loops = [NodeMaintenance(self.agents, self.presence, fleet()).loop, discipline.loop, self._audit.loop]
        self._rollups = RollupKeeper(self.agents.reports, fleet())
        self._loops += [KeysKeeper(fleet()).loop, self._rollups.loop]
        self._loops += couriers(fleet())
        if channels := senders(fleet().settings):
            self._loops.append(Notifier(channels, fleet()).loop)
        if folder := fleet().settings.backup_dir:
            self._loops.append(BackupKeeper(folder, fleet()).loop)
        if endpoint := fleet().settings.otlp_endpoint:
            self._loops.append(SpanSender(endpoint, fleet()).loop)
        readiness = ReadinessProbe(lambda: lacks_of_node(fleet(), self.agents.reports))
        self._loops += notice_loops(readiness.lacks)
        if fleet().settings.metrics:
            self._loops.append(machine_pages(self.agents.reports, fleet(), readiness).loop)

    def start(self, worker: Any) -> None:
        note_event("node.started", f"node {fleet().settings.node}", durable=True)
        self.agents.start()
        for loop in self._loops:
            loop.start()

    def stop(self, worker: Any) -> None:
        """Stop them all; the agents' panes live on."""
        for loop in self._loops:
            loop.stop()
        self.agents.stop()
        note_event("node.ended", f"node {fleet().settings.node}", durable=True)
        with contextlib.suppress(TorchError):
            self._rollups.end()
        with contextlib.suppress(TorchError):
            self.presence.leave()
        with contextlib.suppress(TorchError):
            self._audit.play_round()

    terminate = stop


class NodeMaintenance:
    """Sends the node's heartbeat, keeps its roster and its pools right, and has the fleet's housekeeping done."""

    def __init__(self, agents: LocalAgents, presence: NodePresence, fleet: Fleet) -> None:
        self.loop = Loop("maintenance", self._play_round, pause=fleet.settings.heartbeat_seconds)
        self._rounds = 0
        self._agents = agents
        self._presence = presence
        self._fleet = fleet
        app.leases.listeners.on_return.append(self._restore_what_is_known_here)
        app.leases.listeners.on_buried.append(lambda task_id, _: DeadLetters(fleet).note_lost(task_id))
        app.leases.listeners.on_refused.append(note_refused)

    def _play_round(self) -> None:
        try:
            self._maintain(thoroughly=self._rounds % _THOROUGH == 0)
            self._rounds += 1
        except (StaleWriter, NodeTaken) as error:
            log.critical("%s; stopping", error)
            os.kill(os.getpid(), signal.SIGTERM)
            self.loop.stop()

    def _maintain(self, *, thoroughly: bool) -> None:
        self._presence.beat()
        self._fleet.registry.keep(self._agents.kept())
        self._agents.reconcile(thoroughly=thoroughly)
        if thoroughly and not self._presence.drained and self._is_every_agent_known():
            self._fill_pools()
        run_if_overdue(self._fleet, 2 * self._fleet.settings.heartbeat_seconds)
        recovery.settle_and_close()
        flush_outbox(self._fleet)

    def _is_every_agent_known(self) -> bool:
        """Whether the broker knows all agents: one that lost its data hears of them first, but a new fleet has none."""
        is_fleet_new = self._rounds == 0 and not self._agents.has_spawned
        return is_fleet_new or self._fleet.registry.has_heard_all()

    def _fill_pools(self) -> None:
        """Start what this machine's pools lack of their least number, on any node with room.

        Other machines may declare the same pools.
        """
        settings = self._fleet.settings
        for pool in settings.pools:
            if set(pool.labels) <= set(settings.node_labels):
                started, refusal = start_pool_agents(pool, pool.min, pool.min, Lifetime.PERMANENT, self._fleet)
                log.debug("pool %s: started %s; %s", pool.name, started, refusal)

    def _restore_what_is_known_here(self) -> None:
        """The broker may have forgotten what this machine's agents did, and what was enqueued here."""
        put_back_for_machine(self._fleet)
        recovery.restore_all()
