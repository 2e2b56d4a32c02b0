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
        self._known: dict[str, tuple[int, int | None]] = {}
        self.readings = machine_metrics(fleet, kept, self._sessions)
        self.loop = Loop("metrics", self._serve)

    def _serve(self) -> None:
        settings = self._fleet.settings
        with MetricsServer(settings.metrics_host, settings.metrics_port, self.readings.text) as server:
            server.record(settings.state)
            server.timeout = _LOOK_SECONDS
            while not self.loop.is_stopping:
                server.handle_request()

    def _sessions(self) -> dict[str, int]:
        """The first process in the pane of each agent."""
        found = {agent.agent_id: self._session_in(agent.agent_id) for agent in self._kept()}
        return {agent_id: session for agent_id, session in found.items() if session}

    def _session_in(self, agent_id: str) -> int | None:
        """What the agent's journal says, which is read when it has changed."""
        file = self._fleet.settings.state.agent(agent_id) / JOURNAL
        try:
            written = file.stat().st_mtime_ns
            if (known := self._known.get(agent_id)) and known[0] == written:
                return known[1]
            journal = AgentJournal.read(file)
        except (OSError, StateFolderUnusable):
            return None
        self._known[agent_id] = written, journal.session if journal else None
        return self._known[agent_id][1]
