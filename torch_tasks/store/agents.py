"""The agents: every statement on who is registered, what changes, and which tasks wait for which agent."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Literal

import redis

from torch_tasks import keys
from torch_tasks import settings as own
from torch_tasks.broker.clock import in_ms, time_ms
from torch_tasks.broker.connection import connect
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.broker.scripts import Scripts
from torch_tasks.errors import AgentNotFound, AgentTaken, InvalidRequest, StaleWriter, Unreadable
from torch_tasks.model.agent import AgentInfo, AgentStatus, Performance, RetirementReport
from torch_tasks.model.hold import Hold, LatestHolds
from torch_tasks.model.near import did_you_mean
from torch_tasks.model.reader import number, read_model, read_object, shortened
from torch_tasks.model.routing import GONE, Obstacle
from torch_tasks.model.task import PRIORITY_STEPS, TaskSpec
from torch_tasks.settings import Settings
from torch_tasks.store.ranking import Candidate, Search, rank
from torch_tasks.transport.deliveries import list_of

CHANGES_KEPT = 10_000
"""How many notices of changes are kept for watchers."""
SCRIPTS = Scripts(__file__, CHANGES_KEPT=CHANGES_KEPT)

_ENDS = re.compile(r"\D+(\d+)\D+(\d+)")
_LOOK_MS = 1000
"""How often a watch looks for agents that fell silent."""
_AT_ONCE = 1000
_REMEMBERED_MS = 3_600_000
"""After so long a pin is forgotten whose task was never sent, because its client died."""

_PLACE = re.compile(r"\d+-\d+ -?\d+")


def signs_of_death(settings: Settings) -> dict[str, str | int]:
    """What ``death.lua`` needs to decide whether an agent is dead."""
    return {
        "agents": keys.AGENT_REGISTRY,
        "heartbeats": keys.AGENT_HEARTBEAT,
        "kept": keys.AGENT_KEPT,
        "broker": keys.BROKER_STATE,
        "silence_ms": int(settings.takeover_seconds * 1000),
        "goodbye_ms": int(settings.detached_seconds * 1000),
    }


class AgentRecords:
    """Which agents there are and what they can do; on this process's broker, unless a client is given."""

    def __init__(self, client: redis.Redis | None = None, settings: Settings | None = None) -> None:
        self._settings = settings or own.settings()
        self._client = client or connect(self._settings.broker())
        self._offline_ms = int(self._settings.offline_seconds * 1000)
        self._refused = RefusedLetters(self._client)

    def find_available_agents(
        self,
        role: str | None = None,
        skills: Iterable[str] = (),
        match: Literal["all", "any"] = "all",
        *,
        wished: Iterable[str] = (),
        limit: int | None = None,
    ) -> list[AgentInfo]:
        """The agents that can take such a task: free ones first, then by ``wished`` skills, success rate and load."""
        asked = Search(
            role=(role or "").strip().lower(),
            skills=_words(skills),
            any_skill=match == "any",
            wished=_words(wished),
            obstacles={"left", Obstacle.RETIRING, *(frozenset(Obstacle) - GONE)},
        )
        return self._search(asked, limit)

    def find_serving(self, spec: TaskSpec) -> list[AgentInfo]:
        """One online agent that may take this task, busy or not; an empty list if there is none."""
        if spec.agent:
            return [info for info in self.get_agents([spec.agent]) if info.online]
        return self._search(Search(spec.role or "", spec.skills, obstacles={"left", Obstacle.RETIRING}), limit=1)

    def _search(self, asked: Search, limit: int | None) -> list[AgentInfo]:
        pins, holds, found = SCRIPTS["candidates"](
            self._client,
            heartbeats=keys.AGENT_HEARTBEAT,
            index=keys.AGENT_INDEX,
            traits=keys.AGENT_TRAITS,
            performance=keys.AGENT_PERFORMANCE,
            loads=keys.AGENT_LOAD,
            soft_pins=keys.SOFT_PINS,
            holds=keys.HOLDS,
            offline_ms=self._offline_ms,
            ways=json.dumps(asked.ways()),
        )
        pinned = Counter(agent_id for agent_id, _ in _pairs(pins))
        rows = (parts for row in found if len(parts := str(row).split("\n")) == 4)
        candidates = (_candidate(one, traits, number(load) + pinned[one], ends) for one, traits, load, ends in rows)
        ranked = rank(candidates, asked, self._holds_in(dict(zip(*[iter(holds)] * 2, strict=True))), limit)
        loads = {one.agent_id: one.load for one in ranked}
        infos = self.get_agents(loads)
        return [info.model_copy(update={"load": loads[info.agent_id]}) for info in infos if info.online]

    def skills(self) -> list[str]:
        """Every skill that an agent has, online or not."""
        return [str(skill) for skill in SCRIPTS["skills"](self._client, index=keys.AGENT_INDEX)]

    def get_agent(self, agent_id: str) -> AgentInfo:
        for info in self.get_agents([agent_id]):
            return info
        raise self.unknown(agent_id)

    def unknown(self, agent_id: str) -> AgentNotFound:
        """The error for an id that no agent has; it suggests similar ones."""
        known = map(str, self._client.hkeys(keys.AGENT_REGISTRY))
        hint = did_you_mean(agent_id, known, "'torch-tasks agents' lists those that are")
        return AgentNotFound(f"no agent {agent_id!r} is registered; {hint}")

    def get_agents(self, agent_ids: Collection[str]) -> list[AgentInfo]:
        """Those of these agents that are known."""
        ids = list(agent_ids)
        if not ids:
            return []
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(keys.AGENT_REGISTRY, ids)
            pipe.zmscore(keys.AGENT_HEARTBEAT, ids)
            pipe.hmget(keys.AGENT_PERFORMANCE, ids)
            pipe.hmget(keys.AGENT_LOAD, ids)
            pipe.hmget(keys.AGENT_INCARNATION, ids)
            pipe.hgetall(keys.HOLDS)
            pipe.time()
            *columns, holds, now = pipe.execute()
        rows, holds_now = zip(ids, *columns, strict=True), self._holds_in(holds)
        found = [
            self._info(one, entry, incarnation, beat, in_ms(now), ends, load, holds_now)
            for one, entry, beat, ends, load, incarnation in rows
            if entry
        ]
        return list(filter(None, found))

    def agents(self) -> list[AgentInfo]:
        """All agents ever registered, by id, with who is online now."""
        return self.get_agents(sorted(map(str, self._client.hkeys(keys.AGENT_REGISTRY))))

    def entry(self, agent_id: str) -> AgentInfo | None:
        """The registry's entry of this id, without ``status``, whichever worker wrote it."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hget(keys.AGENT_REGISTRY, agent_id)
            pipe.hget(keys.AGENT_INCARNATION, agent_id)
            entry, incarnation = pipe.execute()
        return self._info(agent_id, entry, incarnation, None, 0, None, None) if entry else None

    def place(self) -> str:
        """Where the stream of changes ends now; taken before the agents are read, what changes meanwhile is seen."""
        newest: Any = self._client.xrevrange(keys.AGENT_CHANGES, count=1)
        return f"{newest[0][0] if newest else '0-0'} {time_ms(self._client) - self._offline_ms}"

    def changed_since(self, place: str, seconds: float) -> tuple[list[AgentInfo], str]:
        """The agents of which something is new since a place in the stream, and the place after that.

        Waits so long for the first. The stream names the agents only: what is new of one is how it differs from its
        last look. :class:`InvalidRequest` if it is no place.
        """
        if not _PLACE.fullmatch(place):
            raise InvalidRequest(f"{place!r} is no place among the changes of agents; begin without one")
        deadline = time.monotonic() + seconds
        while True:
            left_ms = max(1, int((deadline - time.monotonic()) * 1000))
            names, place = self._noticed_since(place, min(left_ms, _LOOK_MS))
            if names or time.monotonic() >= deadline:
                return self.get_agents(sorted(names)), place

    def _noticed_since(self, place: str, wait_ms: int) -> tuple[set[str], str]:
        """The agents that a notice names, waiting for one, and those whose silence has become too long."""
        read, heard_since = place.split()
        answer: Any = self._client.xread({keys.AGENT_CHANGES: read}, count=_AT_ONCE, block=wait_ms)
        notices = answer[0][1] if answer else []
        if len(notices) == _AT_ONCE:  # so far behind that the stream may have lost some: look at all
            place = self.place()
            return {info.agent_id for info in self.agents()}, place
        heard_to = time_ms(self._client) - self._offline_ms
        silent = self._client.zrangebyscore(keys.AGENT_HEARTBEAT, heard_since, heard_to)
        named = {str(notice["agent"]) for _, notice in notices if "agent" in notice}
        return named | set(map(str, silent)), f"{notices[-1][0] if notices else read} {heard_to}"

    def register(self, info: AgentInfo, *, at_least: int = 1, holder_is_gone: bool = False) -> AgentInfo:
        """Enter an agent under a new incarnation; :class:`AgentTaken` while another worker hosts it.

        Its own count of ended tasks is used where the broker has a lower one.
        """
        granted, known, silent_ms = SCRIPTS["register"](
            self._client,
            **_KEYS,
            **_what_is_kept(info),
            host=info.host,
            pid=info.pid,
            offline_ms=self._offline_ms,
            at_least=at_least,
            holder_is_gone=holder_is_gone,
        )
        if granted:
            performance = self._performance(info.agent_id, known)
            return info.model_copy(update={"incarnation": int(granted), "performance_metrics": performance})
        holder = read_object(known)
        whose = f"pid {holder.get('pid')} on {holder.get('host')}"
        raise AgentTaken(
            f"agent {info.agent_id} is hosted already, by {whose} (last heartbeat "
            f"{int(silent_ms) / 1000:.0f} s ago). Choose another --id, or stop that worker first; if it is dead, "
            f"its id is free {self._offline_ms / 1000:g} s after its last heartbeat"
        )

    def heartbeat(self, info: AgentInfo) -> int:
        """Report that the agent lives, and its state; returns how many queues are demanded."""
        own_queue = keys.agent_queue(info.agent_id)
        demanded = SCRIPTS["beat"](
            self._client,
            **_KEYS,
            **_what_is_kept(info),
            demanded=keys.DEMANDED_QUEUES,
            loads=keys.AGENT_LOAD,
            own_queue=[list_of(own_queue, step) for step in PRIORITY_STEPS],
            incarnation=info.incarnation,
            offline_ms=self._offline_ms,
            tasks=int(info.current_task is not None),
        )
        if int(demanded) < 0:
            raise StaleWriter(
                f"agent {info.agent_id} has a later incarnation than {info.incarnation}: "
                "this worker is not its host any more"
            )
        return int(demanded)

    def leave(self, info: AgentInfo) -> None:
        """Mark the agent offline at once; it keeps its tasks for a while, for its pane may work on."""
        self.heartbeat(info.model_copy(update={"left": True}))

    def remove(self, agent_id: str) -> None:
        """Remove an agent that has ended. Its incarnations stay, so a later agent of its id does not own its tasks."""
        places = {name: key for name, key in _KEYS.items() if name != "incarnations"}
        SCRIPTS["remove"](self._client, **places, loads=keys.AGENT_LOAD, kept=keys.AGENT_KEPT, id=agent_id)

    def report(self, report: RetirementReport) -> None:
        """Keep what became of an agent that has ended."""
        self._client.hset(keys.RETIREMENT_REPORTS, report.agent_id, report.model_dump_json())

    def report_of(self, agent_id: str) -> RetirementReport | None:
        """What became of the latest agent of this id that has ended."""
        kept: Any = self._client.hget(keys.RETIREMENT_REPORTS, agent_id)
        read = partial(read_model, RetirementReport)
        return self._refused.reading(keys.RETIREMENT_REPORTS, agent_id, str(kept), read) if kept else None

    def keep(self, agent_ids: Collection[str]) -> None:
        """Promise, for now, that the workers of these agents are started again if they die."""
        if agent_ids:
            SCRIPTS["promise"](self._client, kept=keys.AGENT_KEPT, ids=agent_ids)

    def dead(self) -> list[AgentInfo]:
        """The agents that are silent and kept by no living node worker; none while the broker has run too briefly."""
        return self.get_agents(SCRIPTS["dead"](self._client, **signs_of_death(self._settings)))

    def has_heard_all(self) -> bool:
        """Whether the broker has run long enough for every live agent to have sent a heartbeat."""
        watched_ms = SCRIPTS["watched_ms"](self._client, broker=keys.BROKER_STATE)
        return int(watched_ms) >= self._settings.takeover_seconds * 1000

    def _holds_in(self, fields: Mapping[str, str]) -> LatestHolds:
        return LatestHolds(self._refused.readable(keys.HOLDS, fields, lambda _, text: read_model(Hold, text)))

    def _performance(self, agent_id: str, text: str | None) -> Performance:
        if not text:
            return Performance()
        known = self._refused.reading(keys.AGENT_PERFORMANCE, agent_id, text, lambda one: read_model(Performance, one))
        return known or Performance()

    def _info(
        self,
        agent_id: str,
        entry: str,
        incarnation: Any,
        beat: Any,
        now_ms: int,
        ends: str | None,
        load: Any,
        holds_now: LatestHolds | None = None,
    ) -> AgentInfo | None:
        heard_ms = number(beat)

        def read(text: str) -> AgentInfo:
            kept = _kept_entry(text)
            if kept.agent_id != agent_id:
                raise Unreadable(f"it is the entry of another agent: {shortened(kept.agent_id)}")
            alive = now_ms - heard_ms < self._offline_ms and not kept.left
            return kept.model_copy(
                update={
                    "incarnation": number(incarnation),
                    "last_heartbeat": datetime.fromtimestamp(heard_ms / 1000, UTC) if heard_ms else None,
                    "status": AgentStatus.ACTIVE if alive and heard_ms else AgentStatus.OFFLINE,
                    "performance_metrics": self._performance(agent_id, ends),
                    "load": number(load),
                    "paused": holds_now.pause_of(agent_id, kept.role) if holds_now else None,
                }
            )

        return self._refused.reading(keys.AGENT_REGISTRY, agent_id, entry, read)


_KEYS = {
    "entries": keys.AGENT_REGISTRY,
    "heartbeats": keys.AGENT_HEARTBEAT,
    "incarnations": keys.AGENT_INCARNATION,
    "index": keys.AGENT_INDEX,
    "changes": keys.AGENT_CHANGES,
    "traits": keys.AGENT_TRAITS,
    "performance": keys.AGENT_PERFORMANCE,
}
_LOOKED_UP = {"incarnation", "status", "last_heartbeat", "performance_metrics", "load", "paused"}


@lru_cache(maxsize=2048)
def _kept_entry(text: str) -> AgentInfo:
    """What an entry says, without what is looked up: it is read again at each look, and seldom changes."""
    said = {name: value for name, value in read_object(text).items() if name not in _LOOKED_UP}
    return AgentInfo.model_validate(said | {"incarnation": 0})


def _what_is_kept(info: AgentInfo) -> dict[str, str]:
    """An agent as the scripts take it: see ``agents.lua`` for its traits."""
    marks = {
        "left": info.left,
        Obstacle.RETIRING: info.retiring,
        Obstacle.STOPPED: info.stopped is not None,
        Obstacle.HELD_UP: info.is_held_up,
    }
    obstacle = next((mark for mark, is_so in marks.items() if is_so), "")
    return {
        "id": info.agent_id,
        "entry": info.model_dump_json(exclude=_LOOKED_UP),
        "own_traits": " ".join((obstacle or info.state, info.role, info.kind, *info.skills)),
        "ends": info.performance_metrics.stored,
    }


def _candidate(agent_id: str, traits: str, load: int, ends: str) -> Candidate:
    state, role, *abilities = (*traits.split(" "), "", "")
    ended = _ENDS.match(ends)
    succeeded, failed = (int(ended[1]), int(ended[2])) if ended else (0, 0)
    return Candidate(agent_id, state, role, abilities, load, succeeded, failed)


def _words(skills: Iterable[str]) -> tuple[str, ...]:
    return tuple(skill.strip().lower() for skill in ([skills] if isinstance(skills, str) else skills))


class SoftPins:
    """Which tasks wait for which agents, and until when.

    A pin is written before its task is sent. It is dropped when the agent takes the task, or when housekeeping has
    moved the task to the queue that every able agent reads.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._ms = int(settings.soft_pin_seconds * 1000)

    def reserve(self, agent_id: str, task_id: str) -> bool:
        """Reserve the agent for this task, if it is still free."""
        places = {"soft_pins": keys.SOFT_PINS, "loads": keys.AGENT_LOAD}
        return bool(SCRIPTS["pin"](self._client, **places, agent=agent_id, task=task_id, ms=self._ms))

    def due(self) -> list[tuple[str, str]]:
        """The agents that have not begun in time, each with its task."""
        return _pairs(SCRIPTS["due_pins"](self._client, soft_pins=keys.SOFT_PINS, remembered_ms=_REMEMBERED_MS))

    def all(self) -> list[tuple[str, str]]:
        """The agents that tasks wait for, each with its task."""
        return _pairs(self._client.zrange(keys.SOFT_PINS, 0, -1))

    def drop(self, agent_id: str, task_id: str) -> None:
        self._client.zrem(keys.SOFT_PINS, f"{agent_id} {task_id}")


def _pairs(pins: Iterable[Any]) -> list[tuple[str, str]]:
    return [(agent_id, task_id) for agent_id, _, task_id in (str(pin).partition(" ") for pin in pins)]
