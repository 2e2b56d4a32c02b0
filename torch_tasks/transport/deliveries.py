"""The messages of one broker: how they are written, and every statement that moves one."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.refused import RefusedLetter, refused_name
from torch_tasks.broker.scripts import Scripts
from torch_tasks.model.task import PRIORITY_STEPS
from torch_tasks.transport.envelope import is_signed_long_ago, message_id, readdressed

SEPARATOR = "\x06\x16"
"""Stands between a queue's name and the priority step in the name of a list; kombu's own."""

AT_ONCE = 500
"""How many tags one statement names at most."""
MANY = 200
"""How many messages are read at once where there may be very many."""
MESSAGES_AT_ONCE = 20
HELD = {"leases": keys.LEASES, "deliveries": keys.DELIVERIES}
DEAD = {"dead_letters": keys.DEAD_LETTERS, "refusals": keys.REFUSALS}
WATCHED = {"leases": keys.LEASES, "broker": keys.BROKER_STATE}

SET_ASIDE_HEADER = "torch_set_aside"
"""A message that is published with this header is kept under its task's id, and no consumer gets it."""

BELL_LENGTH = 1000
BELL_MS = 60_000
FIRST_FINDER_MS = 200
"""For so long other processes leave an ended lease to the first one that found it."""
SCRIPTS = Scripts(__file__, BELL_LENGTH=BELL_LENGTH, BELL_MS=BELL_MS, FIRST_FINDER_MS=FIRST_FINDER_MS)

Outcome = Literal["gone", "held", "back", "poison"]


class GateClosed(Exception):
    """No fault: the broker was restarted and has not been reconciled yet."""


class Sweep(NamedTuple):
    ended: list[str]
    #: Until another search is worth it; None if nothing is leased.
    next_ms: int | None


class Deliveries:
    """The deliveries of one broker; the client must decode responses.

    A *tag* stands for one delivery: a message that was taken from a queue and is not settled yet. Tags are never
    used twice. Each method is one step for the broker, and touches nothing if the tag is not there any more.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    # ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, queue: str, message: str, step: int) -> None:
        SCRIPTS["put"](self._client, list=list_of(queue, step), bell=keys.bell(queue), message=message)

    def waiting(self, queue: str) -> list[str]:
        """The messages in a queue, in the order in which they are taken."""
        with self._client.pipeline(transaction=False) as pipe:
            for step in PRIORITY_STEPS:
                pipe.lrange(list_of(queue, step), 0, -1)
            return [str(message) for found in pipe.execute() for message in reversed(found)]

    def nonempty(self, queues: Iterable[str]) -> list[str]:
        """Those of these queues in which messages wait."""
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
        """The ids of the tasks that wait in these queues, and of all that are held, abandoned, parked, or set aside.

        A task that moves meanwhile may be missed; one that waits or is held all the time is not.
        """
        found = {message_id(message) for queue in queues for message in self._in_pages(queue)}
        found |= set(self.set_aside())
        found |= {message_id(str(message)) for _, message in self._client.hscan_iter(keys.DELIVERIES, count=MANY)}
        return {name for name in found if name}

    def _in_pages(self, queue: str) -> Iterator[str]:
        """The messages in a queue, read page by page from the last on: new ones only shift them towards later pages."""
        for step in PRIORITY_STEPS:
            start = 0
            while some := self._client.lrange(list_of(queue, step), start, start + MANY - 1):
                yield from map(str, some)
                start += MANY

    def forward(self, queue: str, message: str, target: str, step: int) -> bool:
        """Move a waiting message to the front of another queue; false if it does not wait in its queue any more."""
        to = {"target": list_of(target, step), "bell": keys.bell(target), "becomes": readdressed(message, target)}
        lists = [list_of(queue, old) for old in PRIORITY_STEPS]
        return any(SCRIPTS["forward"](self._client, list=name, **to, message=message) for name in lists)

    def sign_anew(self, queue: str) -> int:
        """Sign anew, each in its place, the messages that have waited long in a queue; returns how many."""
        count = 0
        for step in PRIORITY_STEPS:
            name = list_of(queue, step)
            for start in range(0, int(self._client.llen(name)), MANY):
                for message in map(str, self._client.lrange(name, start, start + MANY - 1)):
                    becomes = readdressed(message, queue, anew=True) if is_signed_long_ago(message) else message
                    if becomes != message:
                        count += int(SCRIPTS["replace"](self._client, list=name, message=message, becomes=becomes))
        return count

    # ── messages set aside ───────────────────────────────────────────────────────────────────────────────────────

    def withdraw(self, queue: str, task_id: str) -> bool:
        """Set the message of a task aside if it waits in this queue; returns whether it did."""
        lists = [list_of(queue, step) for step in PRIORITY_STEPS]
        return bool(SCRIPTS["withdraw"](self._client, set_aside=keys.SET_ASIDE, lists=lists, id=task_id))

    def set_aside(self) -> list[str]:
        """The ids of the tasks whose messages are set aside."""
        return [str(task_id) for task_id in self._client.hkeys(keys.SET_ASIDE)]

    def message_aside(self, task_id: str) -> str | None:
        message = self._client.hget(keys.SET_ASIDE, task_id)
        return None if message is None else str(message)

    def put_aside_back(self, task_id: str, queue: str, step: int) -> bool:
        """Put a message that is set aside into a queue."""
        return self._replay(keys.SET_ASIDE, task_id, queue, step)

    def _replay(self, place: str, name: str, queue: str, step: int) -> bool:
        message = self._client.hget(place, name)
        if message is None:
            return False
        places = {**DEAD, "dead_letters": place, "list": list_of(queue, step), "bell": keys.bell(queue)}
        becomes = readdressed(str(message), queue, even_expired=True)
        return bool(SCRIPTS["replay"](self._client, **places, id=name, becomes=becomes))

    def set_delivery_aside(self, tag: str, task_id: str) -> bool:
        """Set the message of a delivery aside."""
        places = {**HELD, "dead_letters": keys.SET_ASIDE}
        return bool(SCRIPTS["bury"](self._client, **places, tag=tag, id=task_id, only_ended=False))

    def drop_aside(self, task_id: str) -> None:
        self._client.hdel(keys.SET_ASIDE, task_id)

    # ── one delivery ─────────────────────────────────────────────────────────────────────────────────────────────

    def message(self, tag: str) -> str | None:
        """The message of a delivery that is held, abandoned, or parked."""
        message = self._client.hget(keys.DELIVERIES, tag)
        return None if message is None else str(message)

    def settle(self, tag: str) -> bool:
        return bool(SCRIPTS["settle"](self._client, **HELD, tag=tag))

    def requeue(self, tag: str) -> bool:
        """Put the message back to the front of its queue."""
        return self.put_back(tag) == "back"

    def move(self, tag: str, queue: str, step: int, message: str) -> bool:
        """Put the message to the front of another queue, as it is to lie there."""
        return self._to_list(tag, list_of(queue, step), becomes=message) == "back"

    def park(self, tag: str, queue: str, step: int, ms: int, message: str | None = None) -> bool:
        """Have the message, or another in its place, wait for so long and then go to the front of the queue."""
        waits_as = f"parked:{new_tag(list_of(queue, step))}"
        return bool(SCRIPTS["park"](self._client, **HELD, tag=tag, waits_as=waits_as, ms=ms, message=message))

    def put_back(self, tag: str, *, only_ended: bool = False, limit: int = 0) -> Outcome:
        """Put the message back to the front of its queue; with ``only_ended``, only if its lease has ended.

        With a limit it counts as lost once more; at the limit it is left where it is, as ``poison``.
        """
        return self._to_list(tag, list_of_tag(tag), only_ended=only_ended, limit=limit)

    def _to_list(
        self, tag: str, target: str, *, only_ended: bool = False, limit: int = 0, becomes: str = ""
    ) -> Outcome:
        places = {**HELD, "list": target, "bell": keys.bell(queue_of(target))}
        how = {"only_ended": only_ended, "limit": limit, "becomes": becomes}
        outcome: Outcome = SCRIPTS["put_back"](self._client, **places, tag=tag, **how)
        return outcome

    # ── dead letters ─────────────────────────────────────────────────────────────────────────────────────────────

    def bury(self, tag: str, message_id: str, *, only_ended: bool = False) -> bool:
        """Put the message to the dead letters, under this id."""
        return self._bury(tag, message_id, only_ended=only_ended)

    def refuse(self, tag: str, why: str) -> bool:
        """Put a message that cannot be read to the dead letters, under a name of its own: its id may be another's."""
        refusal = RefusedLetter(place=list_of_tag(tag), why=why, bytes=len(self.message(tag) or ""))
        return self._bury(tag, refused_name(tag), refusal=refusal.model_dump_json())

    def _bury(self, tag: str, name: str, *, only_ended: bool = False, refusal: str = "") -> bool:
        places = {**HELD, **DEAD}
        buried = SCRIPTS["bury"](self._client, **places, tag=tag, id=name, only_ended=only_ended, refusal=refusal)
        return bool(buried)

    def replay(self, message_id: str, queue: str, step: int) -> bool:
        """Put a dead letter to the end of a queue, as if it had never been lost."""
        return self._replay(keys.DEAD_LETTERS, message_id, queue, step)

    def dead_letter_ids(self) -> list[str]:
        return [str(name) for name in self._client.hkeys(keys.DEAD_LETTERS)]

    def readable_dead_letters(self) -> Iterator[tuple[str, str]]:
        """The ids and messages of all that were given up, without those that were refused."""
        refused = {str(name) for name in self._client.hkeys(keys.REFUSALS)}
        for names in _portions([name for name in self.dead_letter_ids() if name not in refused], MESSAGES_AT_ONCE):
            found = self._client.hmget(keys.DEAD_LETTERS, list(names))
            yield from ((name, str(text)) for name, text in zip(names, found, strict=True) if text is not None)

    def dead_letter(self, message_id: str) -> str | None:
        """The message, if it is there; a task that the broker forgot has an empty one."""
        message = self._client.hget(keys.DEAD_LETTERS, message_id)
        return None if message is None else str(message)

    def forget_dead_letter(self, message_id: str) -> bool:
        self._client.hdel(keys.REFUSALS, message_id)
        return bool(self._client.hdel(keys.DEAD_LETTERS, message_id))

    # ── many deliveries ──────────────────────────────────────────────────────────────────────────────────────────

    def renew(self, tags: Sequence[str], lease_ms: int, opening: str) -> list[str]:
        """Hold these for another lease from now; returns those that the broker does not have any more.

        This and :meth:`sweep` raise :class:`GateClosed` unless this ``opening`` of the gate is the one in force.
        """
        lost: list[str] = []
        for some in _portions(tags, AT_ONCE):
            terms = {"opening": opening, "lease_ms": lease_ms}
            lost += _unless_closed(SCRIPTS["renew"](self._client, **WATCHED, **terms, tags=some))
        return lost

    def sweep(self, lease_ms: int, opening: str) -> Sweep:
        """Find the leases that have ended, without moving anything."""
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


# ── how kombu writes the names of queues, and what tags look like ────────────────────────────────────────────────────


def list_of(queue: str, step: int) -> str:
    """The list that holds a queue's messages of one priority step."""
    return f"{queue}{SEPARATOR}{step}" if step else queue


def queue_of(list_name: str) -> str:
    return list_name.partition(SEPARATOR)[0]


def new_tag(list_name: str) -> str:
    """A tag that no delivery had before; it names the list that the message was taken from."""
    return f"{uuid.uuid4().hex}:{list_name}"


def is_parked(tag: str) -> bool:
    """Whether it waits for a while by intent, and no process holds it."""
    return tag.startswith("parked:")


def list_of_tag(tag: str) -> str:
    """The list that a delivery goes back to when no process holds it any more."""
    return tag.removeprefix("parked:").partition(":")[2]
