"""The leases of an app in this process: a thread for each broker renews them, however busy everything else is."""

from __future__ import annotations

import atexit
import logging
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis
from pydantic import SecretStr

from torch_tasks.broker.connection import BrokerClient
from torch_tasks.broker.reconciler import greeting
from torch_tasks.errors import BrokerAway
from torch_tasks.settings import BrokerAddress
from torch_tasks.system.loops import RETRY_SECONDS, Loop
from torch_tasks.transport.callbacks import Callbacks, LeaseListeners
from torch_tasks.transport.claiming import IntakePause
from torch_tasks.transport.deliveries import Deliveries, GateClosed, message_id
from torch_tasks.transport.gate import Gate
from torch_tasks.transport.held import HeldDeliveries

log = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0
"""A broker that takes longer than this counts as away."""
SWEEP_SECONDS = 5.0
SWEEP_LEASES = 5 / 8
"""So much of a lease passes between two sweeps at most: a whole one would look as if the broker had been away."""
BETWEEN_SWEEPS_SECONDS = 0.25
GATE_SECONDS = 0.2


@dataclass(frozen=True)
class LeaseTerms:
    """On which terms messages are held."""

    lease_seconds: float = 8.0
    delivery_limit: int = 10
    recovery_seconds: float = 3.0

    @property
    def lease_ms(self) -> int:
        """The lease as the broker counts."""
        return int(self.lease_seconds * 1000)


class Settlement(NamedTuple):
    """The end of a delivery, and how the broker is told of it."""

    tag: str
    message: str
    tell: Callable[[], bool]


class BrokerChanged(Exception):
    """No fault: another server process answers than the one that knows what we hold."""


class LeaseKeeper:
    """Keeps the deliveries that this process holds on one broker.

    It renews their leases; tells the broker of their ends, in order, again and again while it is away; restores what
    dead processes left; and after the broker's return puts back what this process holds, before anybody takes anything.
    Nothing here raises because the broker is away.
    """

    def __init__(self, parameters: Mapping[str, Any], terms: LeaseTerms, listeners: LeaseListeners) -> None:
        """``parameters`` are those of a redis-py connection pool."""
        self._listeners = listeners
        self.terms = terms
        self._client = _client(parameters, self._greeted)
        self._deliveries = Deliveries(self._client)
        self._gate = Gate(self._client)
        self._holdings = HeldDeliveries()
        self._backlog: deque[Settlement] = deque()
        self._telling = threading.Lock()
        self._callbacks = Callbacks()
        #: The server process that answered last, and the one to which everything we hold was told.
        self._answering: str | None = None
        self._known: str | None = None
        self._epoch = 0
        #: The opening of the gate that we have seen.
        self._opening = ""
        #: Set while we wait at the gate: becomes true when all accounts of this process are put back.
        self._accounts: threading.Event | None = None
        self._away = False
        self._renew_at = self._sweep_at = self._sleeps_until = 0.0
        self._loop = Loop("torch-keeper", self._round, longest_retry_seconds=RETRY_SECONDS)
        self._process = os.getpid()
        self._loop.start()

    # ── what this process holds ──────────────────────────────────────────────────────────────────────────────────

    def hold(self, tag: str, message: str, group: set[str]) -> None:
        """Keep a delivery that was just claimed; it counts among its ``group`` until it is settled."""
        self._holdings.add(tag, message, group)
        soon = time.monotonic() + self.terms.lease_seconds / 4
        if self._sleeps_until > soon:
            self._renew_at = soon
            self._loop.wake()

    def held(self) -> frozenset[str]:
        """The tags of the deliveries that this process holds."""
        return frozenset(self._holdings.messages())

    @property
    def orphans(self) -> set[str]:
        """Tags that outlived their channel; they count against whatever limit the next channel has."""
        return self._holdings.orphans

    def message(self, tag: str) -> str | None:
        """The message of a delivery that this process holds."""
        return self._holdings.message(tag)

    # The ends of a delivery. Each is told to the broker at once, or when it is back; the answer is False if the
    # delivery is not this process's any more, and then nothing is touched.

    def ack(self, tag: str) -> bool:
        """The delivery is done with."""
        return self._settle(tag, lambda: self._deliveries.settle(tag))

    def requeue(self, tag: str) -> bool:
        """The message goes back to the front of its queue."""
        return self._settle(tag, lambda: self._deliveries.requeue(tag))

    def fail(self, tag: str) -> bool:
        """The message goes back to the front of its queue and counts as lost; too often, and it is buried."""
        return self._settle(tag, lambda: self._lose(tag, only_ended=False))

    def move(self, tag: str, queue: str, step: int) -> bool:
        """The message goes to the front of another queue."""
        return self._settle(tag, lambda: self._deliveries.move(tag, queue, step))

    def park(self, tag: str, queue: str, step: int, ms: int, message: str | None = None) -> bool:
        """The message, or another in its place, waits for so long and then goes to the front of the queue."""
        until = time.monotonic() + ms / 1000

        def tell() -> bool:
            left_ms = max(int((until - time.monotonic()) * 1000), 0)
            parked = self._deliveries.park(tag, queue, step, left_ms, message)
            self.look(time.monotonic() + (left_ms + 1) / 1000)  # by now the broker has begun to count
            return parked

        return self._settle(tag, tell)

    def bury(self, tag: str, message_id: str) -> bool:
        """The message goes to the dead letters, under this id."""
        return self._settle(tag, lambda: self._deliveries.bury(tag, message_id))

    def release(self, tags: Set[str], settlers: Mapping[str, object]) -> None:
        """Their channel is gone: they go back, but for those that somebody will still settle.

        Once that settler is gone as well, its delivery goes back, too.
        """
        for tag in tags & settlers.keys():
            self._holdings.orphan(tag, settlers[tag])
        alone = [tag for tag in self._holdings.messages() if tag in tags and tag not in settlers]
        for tag in reversed(alone):  # each goes to the front
            self.requeue(tag)

    def look(self, moment: float = 0.0) -> None:
        """Sweep at this moment at the latest: there may be something to restore, or the gate to be opened."""
        self._sweep_at = min(self._sweep_at, moment)
        self._loop.wake()

    def leave(self) -> None:
        """The process ends: all that it holds goes back."""
        if os.getpid() == self._process:
            with suppress(BrokerAway, BrokerChanged, GateClosed):
                self._tell_backlog()
                self.release(self.held(), {})

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, tag: str, tell: Callable[[], bool]) -> bool:
        if os.getpid() != self._process:  # a forked child has a copy, but holds nothing
            return False
        message = self._holdings.remove(tag)
        if message is None:
            return False
        if not self._backlog and self._known in (None, self._answering):
            try:
                return tell() or self._is_gone(tag)
            except (BrokerAway, BrokerChanged, GateClosed) as error:
                log.debug("delivery %s is settled later: %r", tag, error)
        self._backlog.append(Settlement(tag, message, tell))
        self._loop.wake()
        return True

    def _is_gone(self, tag: str) -> bool:
        """Somebody else has the delivery by now; unless it is the broker that forgot it, which is raised."""
        self._same_broker()
        gate = self._gate.state()
        if not gate.open or gate.opening != self._opening:
            raise GateClosed
        log.warning("delivery %s had been lost when it was settled", tag)
        return False

    def _tell_backlog(self) -> None:
        """Tell the broker all that it has not heard, in order."""
        with self._telling:
            while self._backlog:
                first = self._backlog[0]
                try:
                    if not first.tell():
                        self._tell_again(first)
                except redis.ResponseError:
                    log.exception("the broker refuses to settle delivery %s", first.tag)
                self._backlog.popleft()

    def _tell_again(self, settlement: Settlement) -> None:
        """The broker knows no such delivery. While it recovers, that means nothing: it hears of it, then of its end."""
        if self._accounts is None:
            self._is_gone(settlement.tag)
        else:
            self._deliveries.reinstate({settlement.tag: settlement.message}, self.terms.lease_ms)
            settlement.tell()

    def _lose(self, tag: str, *, only_ended: bool) -> bool:
        """A message was lost with its holder: it goes back to its queue, or to the dead letters."""
        limit = self.terms.delivery_limit
        outcome = self._deliveries.put_back(tag, only_ended=only_ended, limit=limit)
        if outcome == "back":
            log.info("delivery %s was lost with its holder and is back in its queue", tag)
        if outcome != "poison":
            return outcome == "back"
        message = self._deliveries.message(tag) or ""
        name = message_id(message) or tag
        if not self._deliveries.bury(tag, name, only_ended=only_ended):
            return False
        log.error("message %s was lost with its holder %d times and went to the dead letters", name, limit)
        self._callbacks.tell(self._listeners.on_buried, name, message)
        return True

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _round(self) -> float:
        try:
            pause = self._turn_or_return()
        except BrokerAway as error:
            if not self._away:
                log.warning("the broker is away, %d deliveries are kept: %s", len(self.held()), error)
            self._away, pause = True, RETRY_SECONDS
        self._sleeps_until = time.monotonic() + pause
        return pause

    def _turn_or_return(self) -> float:
        try:
            pause = self._turn()
        except (BrokerChanged, GateClosed):
            self._put_back_all()
            pause = 0.0
        if self._away:
            log.warning("the broker is back")
        self._away = False
        return pause

    def _turn(self) -> float:
        """Do what is due; returns the seconds until the next turn."""
        if self._known is None:
            self._client.ping()
        self._same_broker()
        self._tell_backlog()
        if self._accounts is not None and not self._at_gate(self._accounts):
            return GATE_SECONDS
        if time.monotonic() >= self._renew_at:
            self._renew()
            self._renew_at = time.monotonic() + self.terms.lease_seconds / 4
        if time.monotonic() >= self._sweep_at:
            self._sweep_and_plan()
        due = min(self._renew_at, self._sweep_at) if self.held() else self._sweep_at
        return max(due - time.monotonic(), 0.0)

    def _renew(self) -> None:
        for tag in self._holdings.forsaken():
            self.requeue(tag)
        tags = list(self.held())
        lost = self._deliveries.renew(tags, self.terms.lease_ms, self._opening)
        self._same_broker()
        for tag in lost:
            if message := self._holdings.lose(tag):
                log.warning("delivery %s is lost: its lease ended before it was renewed", tag)
                self._callbacks.tell(self._listeners.on_lost, tag, message)

    def _sweep_and_plan(self) -> None:
        pause, self._sweep_at = 0.0, math.inf  # whoever parks a message meanwhile makes it less
        try:
            pause = self._sweep()
        finally:
            self._sweep_at = min(self._sweep_at, time.monotonic() + pause)

    def _sweep(self) -> float:
        """Restore what dead processes left; returns the seconds until that may be needed again."""
        sweep = self._deliveries.sweep(self.terms.lease_ms, self._opening)
        self._same_broker()
        for tag in reversed(sweep.ended):  # each goes to the front: the one that ended first comes last
            self._lose(tag, only_ended=True)
        if sweep.ended:
            return BETWEEN_SWEEPS_SECONDS
        longest = min(SWEEP_SECONDS, self.terms.lease_seconds * SWEEP_LEASES)
        if sweep.next_ms is None:
            return longest
        jitter = random.uniform(0.01, 0.1)  # noqa: S311 - so that not everybody comes at once
        return min(max(sweep.next_ms / 1000, BETWEEN_SWEEPS_SECONDS) + jitter, longest)

    # ── the broker's return ──────────────────────────────────────────────────────────────────────────────────────

    def _greeted(self, identity: str) -> None:
        self._answering = identity

    def _same_broker(self) -> None:
        if self._answering != self._known:
            raise BrokerChanged

    def _put_back_all(self) -> None:
        """The broker that answers does not know what we hold: say it, then wait at its gate."""
        identity = str(self._answering)
        if self._known is None and self._enter(identity, busy=False):
            self._known = identity  # we are new here, and nothing has happened
            return
        told = {settlement.tag: settlement.message for settlement in list(self._backlog)}
        messages = told | self._holdings.messages()
        self._deliveries.reinstate(messages, self.terms.lease_ms)
        log.warning("the broker is new or was restarted: %d deliveries are put back, its gate is closed", len(messages))
        self._known = identity
        self._accounts = self._callbacks.collect(self._listeners.on_return, lambda: self._known == identity)

    def _at_gate(self, accounts: threading.Event) -> bool:
        if not self._enter(str(self._known), busy=not accounts.is_set()):
            return False
        self._same_broker()
        log.warning("the broker's gate is open")
        self._accounts = None
        self._renew_at = self._sweep_at = 0.0
        return True

    def _enter(self, identity: str, *, busy: bool) -> bool:
        entry = self._gate.enter(identity, int(self.terms.recovery_seconds * 1000), self._epoch, busy=busy)
        self._epoch, self._opening = entry.epoch, entry.opening
        return entry.open


def _client(parameters: Mapping[str, Any], greeted: Callable[[str], None]) -> BrokerClient:
    options = dict(parameters)
    options |= {"decode_responses": True, "protocol": 2, "redis_connect_func": greeting(greeted)}
    options |= {"health_check_interval": 0, "socket_timeout": ANSWER_SECONDS}
    if "path" not in parameters:
        options["socket_connect_timeout"] = ANSWER_SECONDS
    where = parameters.get("path") or f"{parameters.get('host')}:{parameters.get('port')}"
    address = BrokerAddress(url=SecretStr(f"redis://{where}/{parameters.get('db', 0)}"), source="the Celery app")
    return BrokerClient(redis.ConnectionPool(**options), address)


class Leases:
    """All leases that one Celery app has in this process: a keeper for each broker it takes messages from."""

    def __init__(self) -> None:
        self.listeners = LeaseListeners()
        #: Stops all channels of the app from taking messages.
        self.intake = IntakePause()
        self._keepers: dict[tuple[object, ...], LeaseKeeper] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._begin_anew)
        atexit.register(self._leave)

    def keeper_for(self, parameters: Mapping[str, Any], terms: LeaseTerms) -> LeaseKeeper:
        """The keeper for the broker at these connection parameters, made if need be."""
        where = tuple(parameters.get(name) for name in ("host", "port", "path", "db", "username"))
        with self._lock:
            if where not in self._keepers:
                self._keepers[where] = LeaseKeeper(parameters, terms, self.listeners)
            return self._keepers[where]

    def keepers(self) -> list[LeaseKeeper]:
        """All of them; none if this process takes no messages."""
        return list(self._keepers.values())

    def keeper_of(self, tag: str) -> LeaseKeeper | None:
        """The one that holds the delivery."""
        return next((keeper for keeper in self.keepers() if keeper.message(tag) is not None), None)

    def _begin_anew(self) -> None:
        """A forked child holds nothing."""
        self._keepers.clear()
        self._lock = threading.Lock()

    def _leave(self) -> None:
        for keeper in self.keepers():
            keeper.leave()
