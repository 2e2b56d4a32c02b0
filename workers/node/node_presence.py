"""One node's place in the fleet: its lock, its entry in the registry, its heartbeat."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import psutil

from torch_tasks.errors import NodeTaken
from torch_tasks.fleet import Fleet
from torch_tasks.model.fields import now
from torch_tasks.model.node import Capacity, KeptAgent, NodeInfo
from torch_tasks.state_folder import TMUX
from torch_tasks.system.files import make_folder
from torch_tasks.system.machine_use import Used, used_below
from torch_tasks.workers.host.presence import hold_lock
from torch_tasks.workers.node.machine_pages import PaneProcesses

_MEASURED_SECONDS = 10.0
"""How often it is measured what the agents use: that reads of every process of the machine."""


class NodePresence:
    """Holds the node's name while this process lives, and reports to the registry what the machine has."""

    def __init__(self, fleet: Fleet, kept: Callable[[], Sequence[KeptAgent]]) -> None:
        self._fleet = fleet
        self._settings = fleet.settings
        self._kept = kept
        self._panes = PaneProcesses(kept, fleet)
        self._used: dict[str, Used] = {}
        self._measured_at = float("-inf")
        make_folder(self._settings.state_dir)
        self._lock = hold_lock(self._settings.state.node_lock, self._taken)
        self._info = NodeInfo(
            name=self._settings.node,
            host=socket.gethostname(),
            pid=os.getpid(),
            address=self._settings.node_address or _address(fleet),
            version=version("torch-tasks"),
            labels=self._settings.node_labels,
            capacity=self._capacity(),
            state_dir=str(self._settings.state_dir),
            started_at=now(),
        )
        self.drained = False

    def enter(self) -> None:
        """Register the name, or refuse with :class:`NodeTaken`."""
        registry = self._fleet.nodes
        former = registry.entry(self._info.name)
        # We hold the folder's lock, so a former node worker of this folder is gone, whatever its heartbeat says.
        gone = former is not None and (former.host, former.state_dir) == (self._info.host, self._info.state_dir)
        self._info = registry.register(self._now(), holder_is_gone=gone)

    def beat(self) -> None:
        """Send a heartbeat with what the node has; :class:`StaleWriter` if another node worker has its name."""
        if not self._info.incarnation:  # the broker was away when this node worker started
            self.enter()
        self.drained = self._fleet.nodes.heartbeat(self._now())

    def leave(self) -> None:
        if self._info.incarnation:
            self._fleet.nodes.leave(self._now())

    def _now(self) -> NodeInfo:
        if time.monotonic() - self._measured_at >= _MEASURED_SECONDS:
            self._measured_at = time.monotonic()
            self._used = used_below(self._panes.by_agent())
        agents = tuple(map(self._with_memory, self._kept()))
        return self._info.model_copy(update={"capacity": self._capacity(), "agents": agents})

    def _with_memory(self, agent: KeptAgent) -> KeptAgent:
        used = self._used.get(agent.agent_id)
        return agent.model_copy(update={"memory": used.memory}) if used else agent

    def _capacity(self) -> Capacity:
        memory = psutil.virtual_memory()
        return Capacity(
            cpus=psutil.cpu_count() or 1,
            load=round(os.getloadavg()[0], 2),
            memory_total=memory.total,
            memory_free=memory.available,
            panes=sum((folder / TMUX).exists() for folder in self._settings.state.agents()),
            agents_limit=self._settings.agents_per_node,
        )

    def _taken(self, holder: str) -> NodeTaken:
        remedy = "Stop it first, or set TORCH_STATE_DIR and TORCH_NODE for another one"
        return NodeTaken(f"a node worker runs already in {self._settings.state_dir}: {holder}. {remedy}")


def _address(fleet: Fleet) -> str:
    """The address from which this machine reaches the broker."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(fleet.settings.broker().door)  # nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
