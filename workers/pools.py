"""Pools: a node sees that the fleet has as many agents of a kind as torch.toml asks for at least."""

from __future__ import annotations

import json
import logging
import uuid

from torch_tasks import keys
from torch_tasks.errors import SpawnRefused
from torch_tasks.fleet import Fleet
from torch_tasks.node_tasks import start_agent
from torch_tasks.spawning import Pool, SpawnRequest

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
                self._fill(pool)

    def _fill(self, pool: Pool) -> None:
        for _ in range(pool.min):
            request = SpawnRequest(
                id=uuid.uuid4().hex,
                role=pool.role,
                skills=pool.skills,
                kind=pool.kind,
                labels=pool.labels,
                workdir=pool.workdir,
                pool=pool.name,
            )
            try:
                spawned, _ = self._fleet.spawns.reserve(request, pool_limit=pool.min)
            except SpawnRefused as error:
                log.debug("pool %s: %s", pool.name, error)
                return
            start_agent.apply_async((json.loads(spawned.model_dump_json()),), queue=keys.node_queue(spawned.node))
            log.info("pool %s: %s on %s", pool.name, spawned.agent_id, spawned.node)
