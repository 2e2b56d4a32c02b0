"""The traffic of agent workers without the agents: their words, over as many connections.

    python -m benchmarks.simulated_agents FIRST COUNT PACE

Agents FIRST to FIRST + COUNT - 1, each PACE times as busy as one. Every word is what Torch's own code would send: it is
given a client that keeps what it is to say. "ready" is printed when all are there; they go on until they are killed.
"""

from __future__ import annotations

import asyncio
import random
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.asyncio.connection import Connection, parse_url

from torch_tasks import keys
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import PRIORITY_STEPS
from torch_tasks.orchestration.housekeeping import run_if_overdue
from torch_tasks.settings import settings
from torch_tasks.store import agents
from torch_tasks.store.agents import AgentRecords
from torch_tasks.store.holds import Holds
from torch_tasks.store.messages import GROUP, Inboxes
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.transport import Deliveries, GateState, deliveries
from torch_tasks.transport.channel import Transport
from torch_tasks.transport.claiming import CLAIM, ClaimRequest
from torch_tasks.transport.leases import SWEEP_SECONDS

ROLES = ("architect", "developer", "devops", "manager", "qa", "researcher", "writer")
SKILLS = tuple(f"skill-{number}" for number in range(30))
WORKING = 4
"""One agent in so many has a task and renews its lease."""
FETCH_MS = 4000
EVENT = "x" * 500
"""About as long as a worker's sign of life for Flower."""
AT_ONCE = 20
"""So many enter at the same time."""

_REGISTRY = [agents.SCRIPTS[name] for name in ("register", "beat")]
_TRANSPORT = [CLAIM, *(deliveries.SCRIPTS[name] for name in ("sweep", "renew", "reinstate"))]

Words = Sequence[Any]
Say = Callable[[Words], Awaitable[Any]]
Line = Coroutine[Any, Any, None]


def made_up_agent(name: str, number: int, dice: random.Random, task: str | None) -> AgentInfo:
    """What an agent with this task registers; its role and skills are random."""
    return AgentInfo(
        agent_id=f"{name}-{number}",
        role=dice.choice(ROLES),
        skills=tuple(dice.sample(SKILLS, 6)),
        kind="claude",
        node=f"node-{number % 50}",
        pid=number,
        host=f"host-{number % 50}",
        incarnation=0,
        state=AgentState.WORKING if task else AgentState.READY,
        current_task=task,
        workdir="/srv/projects/something",
        tmux_socket=f"/var/lib/torch/agents/{name}-{number}/tmux",
        started_at=now(),
    )


class Listener(redis.Redis):
    """Stands where a client stands: keeps what it is to say, and gives an answer that was agreed before."""

    heard: Words = ()

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._answer = answer

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Say nothing."""
        self.heard = words
        return self._answer


def words(say: Callable[[redis.Redis], object], answer: Any = None) -> Words:
    """What this would say to the broker."""
    listener = Listener(answer)
    say(listener)
    return listener.heard


class Agent:
    """What one agent worker says."""

    def __init__(self, number: int, pace: float, gate: GateState) -> None:
        dice = random.Random(number)
        self._pace, self._opening = pace, gate.opening
        self._lease_seconds = settings().lease_seconds
        self._lease_ms = int(self._lease_seconds * 1000)
        self._tag = f"simulated-{number}" if number % WORKING == 0 else ""
        self._info = made_up_agent("simulated", number, dice, task="1" * 32 if self._tag else None)
        role, skill = self._info.role, self._info.skills[0]
        self._queues = [keys.agent_queue(self.id), keys.task_queue(role, ()), keys.task_queue(role, (skill,))]
        asked = ClaimRequest.of(self._queues, PRIORITY_STEPS, server=gate.identity, lease_seconds=self._lease_seconds)
        self._claim: Words = ("EVALSHA", *CLAIM.words(**asked.values))

    @property
    def id(self) -> str:
        """The agent's."""
        return self._info.agent_id

    async def enter(self, say: Say) -> None:
        """Register, open the inbox, hold a task if this is one that works."""
        entered = await say(words(lambda client: AgentRecords(client).register(self._info), [1, "", 0]))
        self._info = self._info.model_copy(update={"incarnation": int(entered[0])})
        for inbox in (keys.inbox(self.id, "normal"), keys.inbox(self.id, "emergency")):
            with suppress(redis.ResponseError):  # it was there before
                await say(("XGROUP", "CREATE", inbox, GROUP, "0", "MKSTREAM"))
        if self._tag:
            held = {self._tag: '{"body": "", "headers": {}}'}
            await say(words(lambda client: Deliveries(client).reinstate(held, self._lease_ms)))

    def lines(self) -> Sequence[Callable[[Say], Line]]:
        """What it does, each on a connection of its own; the one for results is silent."""
        return [self._beat, self._fetch, self._await_tasks, self._keep, self._show_itself, self._listen, self._nothing]

    async def _beat(self, say: Say) -> None:
        said = [words(lambda client: AgentRecords(client).heartbeat(self._info), 0)]
        said += [words(lambda client: Holds(client).latest(), {})]
        if self._tag:  # it asks as often whether its task is still its own, is cancelled, is to be handed over
            said += [words(lambda client: TaskRecords(client, settings()).ownership(self._tag), [None] * 8)] * 3
            said += [self._sweep()]
        async for _ in self._ticks(settings().heartbeat_seconds):
            for what in said:
                await say(what)
            if self._info.pid == 0:  # in the place of a node worker
                await asyncio.to_thread(run_if_overdue, fleet())

    async def _fetch(self, say: Say) -> None:
        wait_ms = int(FETCH_MS / self._pace)
        fetch = words(lambda client: Inboxes(client, settings()).fetch(self.id, wait_ms=wait_ms))
        async for _ in self._ticks(0):
            await say(fetch)

    async def _await_tasks(self, say: Say) -> None:
        bells = [keys.bell(queue) for queue in self._queues]
        async for _ in self._ticks(0):
            if self._tag:
                return
            await say(self._claim)
            await say(("BRPOP", *bells, Transport.brpop_timeout / self._pace))

    async def _keep(self, say: Say) -> None:
        renew = words(lambda client: Deliveries(client).renew([self._tag], self._lease_ms, self._opening), [""])
        async for _ in self._ticks(self._lease_seconds / 4 if self._tag else SWEEP_SECONDS):
            await say(renew if self._tag else self._sweep())

    def _sweep(self) -> Words:
        return words(lambda client: Deliveries(client).sweep(self._lease_ms, self._opening), ["", -1])

    async def _show_itself(self, say: Say) -> None:
        async for _ in self._ticks(settings().events_heartbeat_seconds):
            await say(("PUBLISH", "/0.celeryev/worker.heartbeat", EVENT))

    async def _listen(self, say: Say) -> None:
        await say(("PSUBSCRIBE", f"/0.{self.id}.pidbox"))

    async def _nothing(self, say: Say) -> None:
        await say(("PING",))

    async def _ticks(self, seconds: float) -> AsyncIterator[None]:
        """Every so often; not all agents at the same moment."""
        await asyncio.sleep(random.uniform(0, max(seconds, 5) / self._pace))
        while True:
            yield
            await asyncio.sleep(seconds / self._pace)


async def _connected() -> Say:
    """A new connection to the broker."""
    url = settings().broker().url.get_secret_value()
    where = parse_url(url)
    kind: Any = where.pop("connection_class", Connection)
    connection = kind(**where, protocol=2, socket_timeout=None, socket_connect_timeout=60)
    await connection.connect()

    async def say(what: Words) -> Any:
        await connection.send_command(*what)
        return await connection.read_response()

    return say


async def _entered(agent: Agent) -> list[Line]:
    """What the agent does from now on."""
    lines = [(line, await _connected()) for line in agent.lines()]
    await agent.enter(lines[0][1])
    return [_held(line, say) for line, say in lines]


async def _held(line: Callable[[Say], Line], say: Say) -> None:
    """What has no more to say keeps its connection all the same."""
    await line(say)
    await asyncio.Event().wait()


async def main(first: int, count: int, pace: float) -> None:
    """Let them live."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for script in (*_REGISTRY, *_TRANSPORT):
        fleet().client.script_load(script.script)
    gate = fleet().gate.state()
    agents = [Agent(number, pace, gate) for number in range(first, first + count)]
    async with asyncio.TaskGroup() as living:
        for start in range(0, count, AT_ONCE):
            for lines in await asyncio.gather(*map(_entered, agents[start : start + AT_ONCE])):
                for line in lines:
                    living.create_task(line)
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
