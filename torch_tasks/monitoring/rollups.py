"""Adds up this machine's days for the report: who was there, what was counted, what was nearly full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import psutil

from torch_tasks.errors import BrokerAway
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.node import KeptAgent
from torch_tasks.model.rollup import REPORTED, AgentDay, NodeDay, Stretch, count_key
from torch_tasks.state_folder import TALLY
from torch_tasks.store.rollups import RollupBook, RollupPlace
from torch_tasks.system.machine_use import disk_space
from torch_tasks.system.tally import files_of, read_tally

PAUSE_SECONDS = 15.0
_UNSEEN_SECONDS = 4 * PAUSE_SECONDS
"""Who has not looked for longer was not there meanwhile."""
_MOST_RECOVERIES = 1000


class MachineRollups:
    """Looks at this machine and its agents at intervals, and adds to their days what happened since the last look."""

    def __init__(self, fleet: Fleet, kept: Callable[[], Sequence[KeptAgent]]) -> None:
        self._fleet = fleet
        self._kept = kept
        self._book = RollupBook(fleet.settings.state.rollups)
        self._looked = False
        self._down: dict[str, float] = {}
        """Since when somebody is away who was there before; and the broker."""

    def look(self, moment: float, *, ends: bool = False) -> None:
        """Add what was until this moment; ``ends``: no process is expected here from now on."""
        place = self._book.place()
        begun = moment if place.until is None else min(place.until, moment)
        days = {day: self._book.day(self._fleet.settings.node, day) for day, _ in _by_day(begun, moment)}
        today = days[max(days)]
        lost = not self._looked and place.until is not None  # the node worker that looked before was killed
        seen = not lost and moment - begun <= _UNSEEN_SECONDS
        self._looked = True
        agents = self._agents(moment, today)
        for day, seconds in _by_day(begun, moment):
            self._add_stretch(days[day], seconds, agents, seen_since=None if seen else begun)
        if lost:
            _recovered(today, "node", moment - begun)
        read = self._counts(place, today)
        self._add_peaks(today)
        self._book.write(RollupPlace(until=None if ends else moment, read=read), list(days.values()))
        if _BROKER in self._down:
            return
        with suppress(BrokerAway):
            texts = {str(day): found.model_dump_json(exclude_defaults=True) for day, found in days.items()}
            self._fleet.rollups.put(self._fleet.settings.node, texts, self._book)

    def _agents(self, moment: float, today: NodeDay) -> dict[str, AgentInfo]:
        """Those of this machine that have a heartbeat; without a broker none has one."""
        try:
            found = {
                info.agent_id: info for info in self._fleet.registry.get_agents([a.agent_id for a in self._kept()])
            }
        except BrokerAway:
            self._down.setdefault(_BROKER, moment)
            return {}
        if _BROKER in self._down:
            _recovered(today, "broker", moment - self._down.pop(_BROKER))
        for agent_id, info in found.items():
            if info.online and agent_id in self._down:
                _recovered(today, "agent", moment - self._down.pop(agent_id))
            elif not info.online and not info.left and info.last_heartbeat:
                self._down.setdefault(agent_id, info.last_heartbeat.timestamp())
        return {agent_id: info for agent_id, info in found.items() if info.online}

    def _add_stretch(
        self, day: NodeDay, seconds: float, agents: dict[str, AgentInfo], *, seen_since: float | None
    ) -> None:
        """``seen_since``: no look was made since then, so only a worker that was started before surely lived."""
        day.itself.add(Stretch(declared=seconds, up=seconds if seen_since is None else 0.0))
        for kept in self._kept():
            info = agents.get(kept.agent_id)
            lived = info is not None and (seen_since is None or info.started_at.timestamp() < seen_since)
            was = Stretch(
                declared=seconds,
                up=seconds if lived else 0.0,
                busy=seconds if lived and info and info.current_task else 0.0,
                waiting=seconds if lived and info and (info.state is AgentState.WAITING or info.asks) else 0.0,
            )
            day.agents.setdefault(kept.agent_id, AgentDay(role=kept.role)).add(was)

    def _counts(self, place: RollupPlace, today: NodeDay) -> dict[str, dict[str, list[float]]]:
        """Count what the tallies have more than at the last look; one that has less was begun anew."""
        read: dict[str, dict[str, list[float]]] = {}
        for file in files_of(self._fleet.settings.state):
            agent = file.parent.name if file.name == TALLY else ""
            before = place.read.get(str(file), {})
            read[str(file)] = {}
            for (name, labels), numbers in read_tally(file).items():
                if name not in REPORTED:
                    continue
                key = count_key(agent, name, labels)
                read[str(file)][key] = numbers
                known = before.get(key, [0.0] * len(numbers))
                more = [new - old for new, old in zip(numbers, known, strict=False)]
                if len(known) != len(numbers) or min(more) < 0:
                    more = numbers
                if any(more):
                    today.count(key, more)
        return read

    def _add_peaks(self, today: NodeDay) -> None:
        with suppress(OSError):
            disk = disk_space(self._fleet.settings.state_dir)
            today.peak("disk", disk.size - disk.free, disk.size)
        memory = psutil.virtual_memory()
        today.peak("memory", memory.total - memory.available, memory.total)
        if _BROKER in self._down:
            return
        with suppress(BrokerAway):
            info = self._fleet.client.info()
            today.peak("broker connections", info.get("connected_clients", 0), info.get("maxclients", 0))
            today.peak("broker memory", info.get("used_memory", 0), info.get("maxmemory", 0))


_BROKER = "the broker"
"""No agent has this name: it has a space."""


def _recovered(day: NodeDay, fault: str, seconds: float) -> None:
    known = day.recoveries.setdefault(fault, [])
    if len(known) < _MOST_RECOVERIES:
        known.append(round(max(seconds, 0.0), 1))


def _by_day(begun: float, moment: float) -> Iterator[tuple[date, float]]:
    """The days of a time, in UTC, each with its seconds."""
    at = datetime.fromtimestamp(begun, UTC)
    end = datetime.fromtimestamp(moment, UTC)
    while True:
        tomorrow = datetime(at.year, at.month, at.day, tzinfo=UTC) + timedelta(days=1)
        yield at.date(), (min(end, tomorrow) - at).total_seconds()
        if end < tomorrow:
            return
        at = tomorrow
