"""The messages of one broker: how they are written, and every statement that moves one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.scripts import Scripts
from torch_tasks.model.task import PRIORITY_STEPS

SEPARATOR = "\x06\x16"
"""Stands between a queue's name and the priority step in the name of a list; kombu's own."""
LOSSES = "torch-deliveries"
"""The first field of a message that was lost with its holder: how often."""
LOSSES_HEADER = "torch_deliveries"
"""Where a task finds that number."""

AT_ONCE = 500
"""How many tags one statement names at most."""
MANY = 200
"""How many messages are read at once where there may be very many."""
MESSAGES_AT_ONCE = 20
HELD = {"leases": keys.LEASES, "deliveries": keys.DELIVERIES}
WATCHED = {"leases": keys.LEASES, "broker": keys.BROKER_STATE}

BELL_LENGTH = 1000
BELL_MS = 60_000
FIRST_FINDER_MS = 200
"""For so long an ended lease is left to the process that was the first to find it."""
SCRIPTS = Scripts(__file__, BELL_LENGTH=BELL_LENGTH, BELL_MS=BELL_MS, FIRST_FINDER_MS=FIRST_FINDER_MS)

Outcome = Literal["gone", "held", "back", "poison"]


class GateClosed(Exception):
    """No fault: the broker is not the one that everybody knows, and has not been reconciled yet."""


class Sweep(NamedTuple):
    """What a look for ended leases found."""

    ended: list[str]
    #: Until another look is worth it; nothing is leased if there is none.
    next_ms: int | None


class Deliveries:
    """The deliveries of one broker.

    A *tag* stands for one delivery: for a message that was taken from a queue and is not settled yet. Tags are never
    used twice. Each method is one step for the broker, and touches nothing if the tag is not there any more.
    """

    def __init__(self, client: redis.Redis) -> None:
        """The client must decode responses."""
        self._client = client

    # ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, queue: str, message: str, step: int) -> None:
        """A message joins the end of a queue."""
        SCRIPTS["put"](self._client, list=list_of(queue, step), bell=keys.bell(queue), message=message)

    def waiting(self, queue: str) -> list[str]:
        """The messages in a queue, in the order in which they are taken."""
        with self._client.pipeline(transaction=False) as pipe:
            for step in PRIORITY_STEPS:
                pipe.lrange(list_of(queue, step), 0, -1)
            return [str(message) for found in pipe.execute() for message in reversed(found)]

    def in_use(self, queues: Iterable[str]) -> list[str]:
        """Those of these queues in which something waits."""
        names = list(queues)
        with self._client.pipeline(transaction=False) as pipe:
            for queue in names:
                pipe.exists(*(list_of(queue, step) for step in PRIORITY_STEPS))
            return [queue for queue, lists in zip(names, pipe.execute(), strict=True) if lists]

    def backlogs(self, queues: Sequence[str]) -> dict[str, tuple[int, list[str]]]:
        """How many messages wait in each of these queues that is not empty, and the longest waiting of each step."""
        with self._client.pipeline(transaction=False) as pipe:
            for queue in queues:
                for step in PRIORITY_STEPS:
                    pipe.llen(list_of(queue, step))
                    pipe.lindex(list_of(queue, step), -1)
            answers = iter(pipe.execute())
        found: dict[str, tuple[int, list[str]]] = {}
        for queue in queues:
            steps = [(int(next(answers)), next(answers)) for _ in PRIORITY_STEPS]
            if waiting := sum(length for length, _ in steps):
                found[queue] = waiting, [str(message) for _, message in steps if message]
        return found

    def on_the_way(self, queues: Iterable[str]) -> set[str]:
        """The ids of the tasks that wait in these queues, are held by anybody, abandoned, or parked.

        What moves meanwhile may be missed; what waits or is held all the time is not.
        """
        found = {message_id(message) for queue in queues for message in self._slowly(queue)}
        found |= {message_id(str(message)) for _, message in self._client.hscan_iter(keys.DELIVERIES, count=MANY)}
        return {name for name in found if name}

    def _slowly(self, queue: str) -> Iterator[str]:
        """The messages in a queue, a few at a time, beginning with the last: what joins them shifts them back."""
        for step in PRIORITY_STEPS:
            start = 0
            while some := self._client.lrange(list_of(queue, step), start, start + MANY - 1):
                yield from map(str, some)
                start += MANY

    def forward(self, queue: str, message: str, target: str, step: int) -> bool:
        """A message that waits in one queue waits at the front of another; false if it does not wait there any more."""
        to = {"target": list_of(target, step), "bell": keys.bell(target)}
        lists = [list_of(queue, old) for old in PRIORITY_STEPS]
        return any(SCRIPTS["forward"](self._client, list=name, **to, message=message) for name in lists)

    # ── one delivery ─────────────────────────────────────────────────────────────────────────────────────────────

    def message(self, tag: str) -> str | None:
        """The message of a delivery that is held, abandoned, or parked."""
        message = self._client.hget(keys.DELIVERIES, tag)
        return None if message is None else str(message)

    def settle(self, tag: str) -> bool:
        """The delivery is done with."""
        return bool(SCRIPTS["settle"](self._client, **HELD, tag=tag))

    def requeue(self, tag: str) -> bool:
        """The message goes back to the front of its queue."""
        return self.put_back(tag) == "back"

    def move(self, tag: str, queue: str, step: int) -> bool:
        """The message goes to the front of another queue."""
        return self._to_list(tag, list_of(queue, step))[0] == "back"

    def park(self, tag: str, queue: str, step: int, ms: int, message: str | None = None) -> bool:
        """The message, or another in its place, waits for so long and then goes to the front of the queue."""
        waits_as = parked_tag(list_of(queue, step))
        return bool(SCRIPTS["park"](self._client, **HELD, tag=tag, waits_as=waits_as, ms=ms, message=message))

    def put_back(self, tag: str, *, only_ended: bool = False, limit: int = 0) -> Outcome:
        """The message goes back to the front of its queue, if need be only if its lease has ended.

        With a limit it counts as lost once more; at the limit it is left where it is, as ``poison``.
        """
        return self._to_list(tag, list_of_tag(tag), only_ended=only_ended, limit=limit)[0]

    def _to_list(self, tag: str, target: str, *, only_ended: bool = False, limit: int = 0) -> tuple[Outcome, str]:
        places = {**HELD, "list": target, "bell": keys.bell(queue_of(target))}
        outcome, *message = SCRIPTS["put_back"](self._client, **places, tag=tag, only_ended=only_ended, limit=limit)
        return outcome, message[0] if message else ""

    # ── dead letters ─────────────────────────────────────────────────────────────────────────────────────────────

    def bury(self, tag: str, message_id: str, *, only_ended: bool = False) -> bool:
        """The message goes to the dead letters, under this id."""
        places = {**HELD, "dead_letters": keys.DEAD_LETTERS}
        return bool(SCRIPTS["bury"](self._client, **places, tag=tag, id=message_id, only_ended=only_ended))

    def exhume(self, message_id: str, queue: str, step: int) -> bool:
        """A dead letter joins the end of a queue, as if it had never been lost."""
        places = {"dead_letters": keys.DEAD_LETTERS, "list": list_of(queue, step), "bell": keys.bell(queue)}
        return bool(SCRIPTS["exhume"](self._client, **places, id=message_id))

    def dead(self) -> dict[str, str]:
        """The dead letters by their ids."""
        return {str(name): str(message) for name, message in self._client.hgetall(keys.DEAD_LETTERS).items()}

    def dead_ids(self) -> list[str]:
        """The ids alone."""
        return [str(name) for name in self._client.hkeys(keys.DEAD_LETTERS)]

    def drop_dead(self, message_id: str) -> bool:
        """Forget a dead letter."""
        return bool(self._client.hdel(keys.DEAD_LETTERS, message_id))

    # ── many deliveries ──────────────────────────────────────────────────────────────────────────────────────────

    def renew(self, tags: Sequence[str], lease_ms: int, opening: str) -> list[str]:
        """Hold these for another lease from now; returns those that are not there any more.

        This and :meth:`sweep` raise :class:`GateClosed` unless this ``opening`` of the gate is the one in force.
        """
        lost: list[str] = []
        for some in _portions(tags, AT_ONCE):
            terms = {"opening": opening, "lease_ms": lease_ms}
            lost += _unless_closed(SCRIPTS["renew"](self._client, **WATCHED, **terms, tags=some))
        return lost

    def sweep(self, lease_ms: int, opening: str) -> Sweep:
        """Look which leases have ended; nothing is moved."""
        terms = {"opening": opening, "lease_ms": lease_ms, "at_most": AT_ONCE}
        next_ms, *ended = _unless_closed(SCRIPTS["sweep"](self._client, **WATCHED, **terms))
        return Sweep(ended, None if int(next_ms) < 0 else int(next_ms))

    def reinstate(self, messages: Mapping[str, str], lease_ms: int) -> None:
        """Hold these deliveries, whether the broker still knows them or not."""
        for tags in _portions(list(messages), MESSAGES_AT_ONCE):
            some = {tag: messages[tag] for tag in tags}
            SCRIPTS["reinstate"](self._client, **HELD, lease_ms=lease_ms, tags_and_messages=some)


def _portions(tags: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(tags), size):
        yield tags[start : start + size]


def _unless_closed(answer: list[Any]) -> list[Any]:
    status, *rest = answer
    if status == "closed":
        raise GateClosed
    return rest


# ── how queues, tags and messages are written: as kombu writes them, and what is added to that ───────────────────────


def list_of(queue: str, step: int) -> str:
    """The list that holds a queue's messages of one priority step."""
    return f"{queue}{SEPARATOR}{step}" if step else queue


def queue_of(list_name: str) -> str:
    """The queue whose messages are in this list."""
    return list_name.partition(SEPARATOR)[0]


def new_tag(list_name: str) -> str:
    """A tag that no delivery had before; it names the list that the message was taken from."""
    return f"{uuid.uuid4().hex}:{list_name}"


def parked_tag(list_name: str) -> str:
    """A tag under which a message waits for a time, to go to this list then."""
    return f"parked:{new_tag(list_name)}"


def list_of_tag(tag: str) -> str:
    """The list that a delivery goes to when nobody holds it any more."""
    return tag.removeprefix("parked:").partition(":")[2]


def message_id(message: str) -> str | None:
    """The id of the task in a message, if it is one."""
    try:
        return str(json.loads(message)["headers"]["id"])
    except (ValueError, KeyError, TypeError):
        return None


def losses(message: str) -> int:
    """How often a message was lost with its holder so far."""
    return int(json.loads(message).get(LOSSES, 0))


def delivered(message: str, tag: str) -> dict[str, Any]:
    """A message as its consumer gets it: under this tag, and marked if it was lost before.

    Raises :class:`ValueError` for what no producer of kombu's wrote.
    """
    payload = json.loads(message)
    try:
        properties = payload["properties"]
        properties["delivery_tag"] = tag
        if losses := payload.pop(LOSSES, 0):
            payload["headers"].update({LOSSES_HEADER: losses, "redelivered": True})
            properties["delivery_info"]["redelivered"] = True
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a message: {error!r}") from None
    return dict(payload)
