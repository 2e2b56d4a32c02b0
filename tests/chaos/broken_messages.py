"""Broken messages, by a seed, into every place of a live fleet that somebody who reaches the broker may write to."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import redis
from hostile import NO_JSON, WRONG, body, task_message

from torch_tasks import keys
from torch_tasks.app import ANNOUNCE_QUEUE, ANSWER, CHECKIN, LOOK, RUN, SHOW
from torch_tasks.transport.deliveries import list_of

Write = Callable[[redis.Redis, str], object]
STEPS = (0, 3, 6, 9)
HASHES = (
    keys.AGENT_REGISTRY,
    keys.AGENT_PERFORMANCE,
    keys.AGENT_LOAD,
    keys.AGENT_TRAITS,
    keys.NODE_REGISTRY,
    keys.SPAWNED,
    keys.SPAWN_STATES,
    keys.HOLDS,
    keys.CLAIMS,
    keys.GIT_REPORTS,
    keys.FOLLOWUPS,
    keys.LAST_STATUS,
    keys.RETIREMENT_REPORTS,
    keys.DEAD_LETTERS,
    keys.REFUSALS,
)
CHANNELS = (
    "/0.celery.pidbox",
    "/0.celeryev/task.received",
    "nova:torch:devs",
    keys.AUDIT,
    keys.NOTICES,
    keys.task_record("some"),
    keys.message("some"),
)
WRONG_SPECS: tuple[Any, ...] = ([], [5], [None], [{"prompt": 5}], [{"prompt": ""}], [{"prompt": "x", "role": "any"}])
TASKS = (RUN, CHECKIN, "torch.start_agent", "torch.retire", "torch.release", "torch.spawn", "no.such.task")
CONTROLS = (ANNOUNCE_QUEUE, ANSWER, LOOK, SHOW, "no_such_command")
WRONG_ARGUMENTS: tuple[Any, ...] = ({"queue": 5}, {"queue": "\n"}, {"task_id": []}, {"other": {}}, {})


class BrokenMessages:
    """Writes one broken message after another; the same seed writes the same ones."""

    def __init__(self, client: redis.Redis, queues: list[str], inboxes: list[str], seed: int) -> None:
        self._client = client
        self._chance = random.Random(seed)
        self._queues = queues
        self._inboxes = inboxes

    def write(self) -> None:
        chance = self._chance
        what = chance.choice((self._to_queue, self._to_hash, self._to_record, self._to_stream, self._to_channel))
        what(chance)

    def _to_queue(self, chance: random.Random) -> None:
        self._client.lpush(list_of(chance.choice(self._queues), chance.choice(STEPS)), self._message(chance))

    def _to_hash(self, chance: random.Random) -> None:
        field = chance.choice(("developer-1", "node-a", "some", "", "x" * 1000, "ü\n", f"{chance.random()}"))
        self._client.hset(chance.choice(HASHES), field, self._text(chance))

    def _to_record(self, chance: random.Random) -> None:
        """A task, message or check-in that nobody sent."""
        name = f"broken-{chance.random()}"
        fields = {"spec": self._text(chance), "message": self._text(chance), "checkin": self._text(chance)}
        fields |= {"state": chance.choice(("queued", "accepted", "active", "sold")), "created_at": "now"}
        kind = chance.randrange(3)
        self._client.hset((keys.task_record, keys.message, keys.checkin)[kind](name), mapping=fields)
        index = (keys.TASK_STATUS, keys.MESSAGES, keys.CHECKINS)[kind]
        self._client.zadd(index, {name: time.time() * 1000})
        if kind == 2:
            self._client.zadd(keys.CHECKINS_DUE, {name: time.time() * 1000})

    def _to_stream(self, chance: random.Random) -> None:
        streams = (*self._inboxes, keys.AUDIT, keys.NOTICES, keys.AGENT_CHANGES, keys.CHECKIN_CHANGES)
        field = chance.choice(("id", "agent", "ids", "other"))
        self._client.xadd(chance.choice(streams), {field: self._text(chance)})

    def _to_channel(self, chance: random.Random) -> None:
        self._client.publish(chance.choice(CHANNELS), self._message(chance))

    def _message(self, chance: random.Random) -> str | bytes:
        match chance.randrange(6):
            case 0:
                return self._text(chance)
            case 1:
                return json.dumps(chance.choice(list(WRONG.values())))
            case 2:  # the right form, and no such task
                arguments = chance.choice(WRONG_SPECS)
                return json.dumps(task_message(headers__task=chance.choice(TASKS), body=body([arguments, {}, {}])))
            case 3:
                command = {"method": chance.choice(CONTROLS), "arguments": chance.choice(WRONG_ARGUMENTS)}
                return json.dumps(task_message(headers={}, body=body(chance.choice((command, [command], 5)))))
            case 4:
                return self._damaged(json.dumps(task_message(body=body([["echo"], 5, {}]))), chance)
            case _:
                return chance.randbytes(chance.randrange(1, 200))

    def _text(self, chance: random.Random) -> str:
        match chance.randrange(4):
            case 0:
                return chance.choice(list(NO_JSON.values()))
            case 1:
                return json.dumps(chance.choice(list(WRONG.values())))
            case 2:
                return self._damaged('{"by": "operator", "state": "ready", "at": 1, "agent_id": "developer-1"}', chance)
            case _:
                return json.dumps(chance.choice(([], {}, None, 5, "x" * 10_000, {"a": {"b": [1]}}, True, -1.5)))

    @staticmethod
    def _damaged(text: str, chance: random.Random) -> str:
        letters = list(text)
        for _ in range(chance.randint(1, 5)):
            letters[chance.randrange(len(letters))] = chance.choice('{}[]",:\\\0ü0-N')
        return "".join(letters)
