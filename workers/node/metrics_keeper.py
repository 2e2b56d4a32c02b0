"""Shows this machine to Prometheus while the node worker runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.fleet import Fleet
from torch_tasks.model.node import KeptAgent
from torch_tasks.monitoring.machine_metrics import machine_metrics
from torch_tasks.monitoring.metrics_server import MetricsServer
from torch_tasks.state_folder import JOURNAL
from torch_tasks.system.loops import Loop
from torch_tasks.workers.folders import AgentJournal

_LOOK_SECONDS = 5.0


class MetricsKeeper:
    """Serves until its loop is stopped; if nothing can listen, the loop tries again."""

    def __init__(self, kept: Callable[[], Sequence[KeptAgent]], fleet: Fleet) -> None:
        self._fleet = fleet
        self._kept = kept
        self.loop = Loop("metrics", self._serve)

    def _serve(self) -> None:
        settings = self._fleet.settings
        readings = machine_metrics(self._fleet, self._kept, self._sessions)
        with MetricsServer(settings.metrics_host, settings.metrics_port, readings.text) as server:
            server.record(settings.state)
            server.timeout = _LOOK_SECONDS
            while not self.loop.is_stopping:
                server.handle_request()

    def _sessions(self) -> dict[str, int]:
        """The first process in the pane of each agent."""
        found: dict[str, int] = {}
        for agent in self._kept():
            try:
                journal = AgentJournal.read(self._fleet.settings.state.agent(agent.agent_id) / JOURNAL)
            except StateFolderUnusable:
                continue
            if journal and journal.session:
                found[agent.agent_id] = journal.session
        return found
