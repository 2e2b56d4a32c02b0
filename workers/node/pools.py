"""Pools: a node sees that the fleet has as many agents of a kind as torch.toml asks for at least."""

from __future__ import annotations

import logging

from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import Lifetime
from torch_tasks.orchestration.autoscaler import staff

log = logging.getLogger(__name__)


class Pools:
    """The pools of this machine's torch.toml, as far as it can host them. Other machines may have the same ones."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def fill(self) -> None:
        """Start what is missing, on whichever node has most room."""
        chosen = self._fleet.settings
        for pool in chosen.pools:
            if set(pool.labels) <= set(chosen.node_labels):
                started, refusal = staff(pool, pool.min, pool.min, Lifetime.PERMANENT, self._fleet)
                log.debug("pool %s: started %s; %s", pool.name, started, refusal)
