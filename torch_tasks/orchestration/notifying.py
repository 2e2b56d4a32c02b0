"""A person is told of what needs one, by one channel after the other until somebody has seen it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.model.fields import now
from torch_tasks.model.notify_channel import NotifyChannel
from torch_tasks.orchestration.attention import Need, needs
from torch_tasks.redaction import redacted
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

_AGAIN = 12
"""How many heartbeats after a failure a channel is tried again, by this process or another one."""
_SERVED = 6
"""How many heartbeats a process counts as serving its channels after it last said so."""
_LONGEST_TRY = 60
"""After so many seconds another process may try instead of one that perhaps died."""
_SEEN, _WHOSE = "seen", "@"
NOBODYS: Mapping[str, str] = MappingProxyType({})


class Sender(Protocol):
    """Tells by one channel."""

    at_once: int
    """Of so many needs it tells together."""

    @property
    def whose(self) -> str:
        """Which people it tells, if another process tells others by the same channel; empty if all tell the same."""

    def is_open(self) -> bool:
        """Whether it would reach anybody."""

    def tell(self, needs: Sequence[Need]) -> str:
        """Tell of these needs; why that was not done, empty if it was."""


class Mark(NamedTuple):
    """What became of a need at a channel, or that somebody has seen it: a field of the broker's hash."""

    at: datetime
    has_failed: bool = False

    @classmethod
    def read(cls, text: str) -> Self:
        at, _, how = text.partition(" ")
        return cls(datetime.fromisoformat(at), bool(how))

    def __str__(self) -> str:
        return self.at.isoformat() + (" failed" if self.has_failed else "")


def due(
    ladder: Sequence[NotifyChannel], marks: Mapping[str, Mark], moment: datetime, own: Mapping[str, str] = NOBODYS
) -> list[str]:
    """The channels by which a need has to be told now.

    One follows the other when nobody has looked for as long as that one's patience lasts; at once where it failed,
    which is tried again all the same. Of channels by which each process tells people of its own, ``own`` has the
    marks' names of the one that asks.
    """
    if _SEEN in marks:
        return []
    found: list[str] = []
    opens = moment
    for channel in ladder:
        if opens > moment:
            break
        of_channel = [mark for name, mark in marks.items() if name.partition(_WHOSE)[0] == channel.name]
        told = [mark for mark in of_channel if not mark.has_failed]
        mark = marks.get(own[channel.name]) if channel.name in own else next(iter([*told, *of_channel]), None)
        if mark is None:
            return [*found, channel.name]  # how it goes decides about those behind it
        if mark.has_failed:
            found.append(channel.name)
        if told:
            opens = min(one.at for one in told) + timedelta(seconds=channel.patience_seconds)
    return found


class Notifier:
    """Tells of each need of the fleet, once by each channel that is due, whichever process does it.

    If this process dies between telling and the note of it, the channel is used twice.
    """

    def __init__(self, senders: Mapping[str, Sender], fleet: Fleet) -> None:
        """``senders`` are those of the fleet's channels that this process serves, by their names."""
        self._senders, self._fleet = senders, fleet
        self._ladder = fleet.settings.channels
        every = fleet.settings.heartbeat_seconds
        self.loop = Loop("notifier", self._look, pause=every, delay=every)
        self._again_seconds = max(1, round(_AGAIN * every))
        self._served_seconds = max(2.0, _SERVED * every)

    def _look(self) -> None:
        serves = [name for name, sender in self._senders.items() if sender.is_open()]
        ladder = [one for one in self._ladder if one.name in self._served(serves)]
        if not ladder:
            return
        marked = marks(self._fleet)  # read first: what is added meanwhile stays
        found = needs(self._fleet)
        self._forget(marked, {need.id for need in found})
        own = {name: f"{name}{_WHOSE}{whose}" for name in serves if (whose := self._senders[name].whose)}
        wanted = [(need, set(due(ladder, marked.get(need.id, {}), now(), own))) for need in found]
        for name in serves:
            self._tell(name, own.get(name, name), [need for need, names in wanted if name in names])

    def _served(self, here: Collection[str]) -> set[str]:
        """The channels that a process of the fleet serves; says that this one serves ``here``."""
        client, moment = self._fleet.client, now().timestamp()
        if here:
            client.zadd(keys.NOTIFIERS, dict.fromkeys(here, moment + self._served_seconds), gt=True)
        client.zremrangebyscore(keys.NOTIFIERS, "-inf", moment)
        return set(map(str, client.zrange(keys.NOTIFIERS, 0, -1)))

    def _forget(self, marked: Mapping[str, Mapping[str, Mark]], standing: Collection[str]) -> None:
        over = [_field(need, name) for need, of in marked.items() if need not in standing for name in of]
        if over:
            self._fleet.client.hdel(keys.NOTIFIED, *over)

    def _tell(self, name: str, mark: str, needs: Iterable[Need]) -> None:
        """Tell of those that no other process tells of now, and note it in their ``mark``."""
        claimed = (need for need in needs if self._claim(_field(need.id, mark)))
        while together := list(islice(claimed, self._senders[name].at_once)):
            self._tell_together(name, mark, together)

    def _claim(self, field: str) -> bool:
        """Whether this process is the one that tells."""
        client, claim = self._fleet.client, keys.notifying(field)
        if not client.set(claim, self._fleet.settings.node, nx=True, ex=_LONGEST_TRY + self._again_seconds):
            return False
        known = client.hget(keys.NOTIFIED, field)
        if known is None or Mark.read(str(known)).has_failed:
            return True
        client.delete(claim)  # another process did it a moment ago
        return False

    def _tell_together(self, name: str, mark: str, needs: Sequence[Need]) -> None:
        client, fields = self._fleet.client, [_field(need.id, mark) for need in needs]
        claims = list(map(keys.notifying, fields))
        shown = [need.model_copy(update={"text": redacted(need.text), "do": redacted(need.do)}) for need in needs]
        failure = self._senders[name].tell(shown)
        client.hset(keys.NOTIFIED, mapping=dict.fromkeys(fields, str(Mark(now(), bool(failure)))))
        said = "; ".join(need.text for need in shown)
        if not failure:
            log.info("notified by %s: %s", name, said)
            client.delete(*claims)
            return
        for claim in claims:
            client.expire(claim, self._again_seconds)
        again = f"again in {self._again_seconds} s"
        log.error("%s; %s. Not notified by %s: %s", redacted(failure), again, name, said)


def marks(fleet: Fleet) -> dict[str, dict[str, Mark]]:
    """What is known of each need: by which channels it was told, and whether somebody has seen it."""
    found: dict[str, dict[str, Mark]] = {}
    for field, text in fleet.client.hgetall(keys.NOTIFIED).items():
        need, _, name = str(field).rpartition("\n")
        found.setdefault(need, {})[name] = Mark.read(str(text))
    return found


def seen(fleet: Fleet) -> set[str]:
    """The needs that somebody has seen."""
    return {need for need, of in marks(fleet).items() if _SEEN in of}


def note_seen(fleet: Fleet, need: str) -> None:
    """Somebody has seen it: no further channel tells of it. It waits as before."""
    fleet.client.hset(keys.NOTIFIED, _field(need, _SEEN), str(Mark(now())))


def _field(need: str, name: str) -> str:
    return f"{need}\n{name}"
