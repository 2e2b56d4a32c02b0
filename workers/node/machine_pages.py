"""What a node worker shows of its machine: metrics for Prometheus, and whether it lives and can do its job."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.fleet import Fleet
from torch_tasks.model.node import KeptAgent
from torch_tasks.monitoring.exposition import Readings
from torch_tasks.monitoring.machine_metrics import machine_metrics
from torch_tasks.monitoring.pages import Page, PageKeeper, health_pages
from torch_tasks.monitoring.readiness import ReadinessProbe
from torch_tasks.state_folder import JOURNAL
from torch_tasks.workers.folders import AgentJournal


def machine_pages(kept: Callable[[], Sequence[KeptAgent]], of: Fleet, readiness: ReadinessProbe) -> PageKeeper:
    """The keeper of this machine's pages; ``kept`` are its agents."""
    settings = of.settings
    readings = readings_of(kept, of)
    pages = {
        "/metrics": lambda: Page(readings.text(), CONTENT_TYPE_LATEST),
        **health_pages(readiness),
    }
    return PageKeeper(settings.metrics_host, settings.metrics_port, pages, settings.state.metrics_address)


def readings_of(kept: Callable[[], Sequence[KeptAgent]], of: Fleet) -> Readings:
    """What Prometheus reads of this machine."""
    return machine_metrics(of, kept, PaneProcesses(kept, of).by_agent)


class PaneProcesses:
    """Knows the first process in the pane of each agent here; a journal is read when it has changed."""

    def __init__(self, kept: Callable[[], Sequence[KeptAgent]], of: Fleet) -> None:
        self._kept = kept
        self._state = of.settings.state
        self._known: dict[str, tuple[int, int | None]] = {}

    def by_agent(self) -> dict[str, int]:
        found = {agent.agent_id: self._process_of(agent.agent_id) for agent in self._kept()}
        return {agent_id: process for agent_id, process in found.items() if process}

    def _process_of(self, agent_id: str) -> int | None:
        file = self._state.agent(agent_id) / JOURNAL
        try:
            written = file.stat().st_mtime_ns
            if (known := self._known.get(agent_id)) and known[0] == written:
                return known[1]
            journal = AgentJournal.read(file)
        except (OSError, StateFolderUnusable):
            return None
        self._known[agent_id] = written, journal.session if journal else None
        return self._known[agent_id][1]
