"""What this process holds: one thread that keeps the leases alive, however busy or stuck the rest is."""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple
from weakref import ReferenceType, ref

import redis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer

from torch_tasks.transport.deliveries import Deliveries, GateClosed
from torch_tasks.transport.gate import Gate, greeting
from torch_tasks.transport.wire import message_id

log = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0
"""A broker that takes longer than this counts as away."""
RETRY_SECONDS = 0.5
SWEEP_SECONDS = (0.25, 5.0)
GATE_SECONDS = 0.2

AWAY = (NoConnection, NoAnswer)


@dataclass(frozen=True)
class Terms:
    """On which terms messages are held."""

    lease_seconds: float = 8.0
    delivery_limit: int = 10
    recovery_seconds: float = 3.0

    @property
    def lease_ms(self) -> int:
        """The lease as the broker counts."""
        return int(self.lease_seconds * 1000)


@dataclass
class Held:
    """A delivery that this process took."""

    message: str
    #: Those that count against the same prefetch limit.
    group: set[str]
    #: The broker gave it to somebody else.
    lost: bool = False
    #: Set when its channel is gone: once nobody can settle it any more, it goes back.
    settler: ReferenceType[Any] | None = None


class Settlement(NamedTuple):
    """The end of a delivery that the broker has not heard of yet."""

    tag: str
    message: str
    tell: Callable[[], bool]


class Returned(Exception):
    """No fault: another server process answers than the one that knows our deliveries."""


@dataclass
class Recovery:
    """One return of a broker, as seen from this process."""

    accounts: threading.Thread

    @property
    def busy(self) -> bool:
        """This process still has more to say."""
        return self.accounts.is_alive()


class Keeper:
    """Keeps the deliveries that this process holds on one broker.

    It renews their leases, tells the broker of their ends (again and again while it is away, in order), restores what
    dead processes left, and after the broker's return puts back what this process holds before anybody takes anything.
    Nothing here raises because the broker is away.

    The lists of callbacks hold for every keeper of the process, made or yet to be made. A callback runs in a thread of
    the keeper's own; what it raises is logged.
    """

    #: Called with tag and message of a delivery that somebody else may have by now.
    on_lost: ClassVar[list[Callable[[str, str], object]]] = []
    #: Called after the broker's return, while nobody takes messages: to put back what only this process knows. Called
    #: again if the broker goes away meanwhile.
    on_return: ClassVar[list[Callable[[], object]]] = []
    #: Called with id and message of what this process put to the dead letters because it was lost too often.
    on_buried: ClassVar[list[Callable[[str, str], object]]] = []

    def __init__(self, parameters: Mapping[str, Any], terms: Terms) -> None:
        """``parameters`` are those of a redis-py connection pool."""
        self.terms = terms
        #: Tags that outlived their channel; they count against whatever limit the next channel has.
        self.orphans: set[str] = set()
        self._client = _client(parameters, self._greeted)
        self._deliveries = Deliveries(self._client)
        self._gate = Gate(self._client)
        self._lock = threading.RLock()
        self._held: dict[str, Held] = {}
        self._backlog: deque[Settlement] = deque()
        self._answering: str | None = None
        self._identity: str | None = None
        self._epoch = 0
        self._recovery: Recovery | None = None
        self._reporting = threading.Lock()
        self._telling = threading.Lock()
        self._away = False
        self._renew_at = self._sweep_at = 0.0
        self._wake = threading.Event()
        self._process = os.getpid()
        threading.Thread(target=self._run, name="torch-keeper", daemon=True).start()

    # ── what this process holds ──────────────────────────────────────────────────────────────────────────────────

    def hold(self, tag: str, message: str, group: set[str]) -> None:
        """Keep a delivery that was just claimed; it counts among its ``group`` until it is settled."""
        with self._lock:
            group.add(tag)
            self._held[tag] = Held(message, group)

    def held(self) -> frozenset[str]:
        """The tags that this process holds."""
        with self._lock:
            return frozenset(tag for tag, held in self._held.items() if not held.lost)

    def holds(self, tag: str) -> bool:
        """This process holds the delivery."""
        held = self._held.get(tag)
        return held is not None and not held.lost

    def message(self, tag: str) -> str | None:
        """The message of a delivery that this process holds."""
        held = self._held.get(tag)
        return None if held is None or held.lost else held.message

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
            left = max(until - time.monotonic(), 0)
            parked = self._deliveries.park(tag, queue, step, int(left * 1000), message)
            self._sweep_by(time.monotonic() + left)
            return parked

        return self._settle(tag, tell)

    def bury(self, tag: str, message_id: str) -> bool:
        """The message goes to the dead letters, under this id."""
        return self._settle(tag, lambda: self._deliveries.bury(tag, message_id))

    def release(self, tags: Iterable[str], settlers: Mapping[str, Any]) -> None:
        """A channel is gone: its deliveries go back, but for those that somebody still settles: a run, for instance."""
        for tag in reversed(list(tags)):
            settler = settlers.get(tag)
            if settler is None:
                self.requeue(tag)
                continue
            with self._lock:
                if held := self._held.get(tag):
                    held.group.discard(tag)
                    held.group, held.settler = self.orphans, ref(settler)
                    self.orphans.add(tag)

    def _settle(self, tag: str, tell: Callable[[], bool]) -> bool:
        """Tell the broker the end of a delivery, now or, if it is away, later. False if it is not ours any more."""
        if os.getpid() != self._process:
            return False
        with self._lock:
            held = self._held.pop(tag, None)
            if held is None:
                return False
            held.group.discard(tag)
            if held.lost:
                return False
            settlement = Settlement(tag, held.message, tell)
            if self._backlog or self._answering != self._identity:
                return self._tell_later(settlement)
        try:
            done = tell() or self._is_gone(tag)
        except (*AWAY, Returned, GateClosed) as error:
            log.debug("delivery %s will be settled later: %r", tag, error)
            with self._lock:
                return self._tell_later(settlement)
        return done is True

    def _is_gone(self, tag: str) -> str:
        """Somebody else has the delivery by now, unless it is the broker that forgot it."""
        self._same_broker()
        if not self._gate.state().open:
            raise GateClosed
        log.info("delivery %s had gone to somebody else", tag)
        return "gone"

    def _tell_backlog(self) -> None:
        """Tell the broker all that it has not heard, in order."""
        with self._telling:
            while self._backlog:
                first = self._backlog[0]
                try:
                    if not first.tell() and self._recovery is None:
                        self._is_gone(first.tag)
                except redis.ResponseError:
                    log.exception("the broker refuses to settle delivery %s", first.tag)
                self._backlog.popleft()

    def _tell_later(self, settlement: Settlement) -> bool:
        self._backlog.append(settlement)
        self._wake.set()
        return True

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _greeted(self, identity: str) -> None:
        self._answering = identity

    def _run(self) -> None:
        while True:
            try:
                self._turn()
                pause = self._until_next()
                if self._away:
                    log.info("the broker is back")
                self._away = False
            except (Returned, GateClosed):
                pause = 0.0 if self._arrive() else RETRY_SECONDS
            except AWAY as error:
                if not self._away:
                    log.warning("the broker is away, %d deliveries are kept: %s", len(self._held), error)
                self._away, pause = True, RETRY_SECONDS
            except Exception:
                log.exception("this is a fault in Torch; the leases are kept all the same")
                pause = RETRY_SECONDS
            self._wake.wait(pause)
            self._wake.clear()

    def _turn(self) -> None:
        """Do what is due."""
        if self._identity is None:
            self._client.ping()
        self._same_broker()
        self._tell_backlog()
        if self._recovery is not None:
            self._wait_at_gate(self._recovery)
            return
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew()
            self._renew_at = now + self.terms.lease_seconds / 4
        if now >= self._sweep_at:
            self._sweep_at = now + self._sweep()

    def _until_next(self) -> float:
        if self._recovery is not None:
            return GATE_SECONDS
        due = min(self._renew_at, self._sweep_at) if self._held else self._sweep_at
        return max(due - time.monotonic(), 0.0)

    def _same_broker(self) -> None:
        if self._answering != self._identity:
            raise Returned

    def _renew(self) -> None:
        self._drop_forsaken()
        tags = list(self.held())
        if not tags:
            return
        lost = self._deliveries.renew(tags, self.terms.lease_ms, str(self._identity))
        self._same_broker()
        for tag in lost:
            with self._lock:
                held = self._held.get(tag)
                if held is None:  # settled a moment ago
                    continue
                held.lost = True
            log.warning("delivery %s was lost: it was not renewed in time", tag)
            _call_each(self.on_lost, tag, held.message)

    def _drop_forsaken(self) -> None:
        """What nobody can settle any more goes back."""
        for tag in list(self.orphans):
            held = self._held.get(tag)
            if held and held.settler and held.settler() is None:
                self.requeue(tag)

    def _sweep(self) -> float:
        """Restore what dead processes left; returns the seconds until that may be needed again."""
        sweep = self._deliveries.sweep(self.terms.lease_ms, str(self._identity))
        self._same_broker()
        for tag in sweep.ended:
            self._lose(tag, only_ended=True)
        least, most = SWEEP_SECONDS
        most = min(most, self.terms.lease_seconds / 2)
        if sweep.ended or sweep.next_ms is None:
            return least if sweep.ended else most
        return min(max(sweep.next_ms / 1000 + random.uniform(0.01, 0.1), min(least, most)), most)  # noqa: S311

    def _sweep_by(self, moment: float) -> None:
        self._sweep_at = min(self._sweep_at, moment)
        self._wake.set()

    def _lose(self, tag: str, *, only_ended: bool) -> bool:
        """A delivery was lost with its holder: its message goes back, or to the dead letters."""
        limit = self.terms.delivery_limit
        outcome = self._deliveries.put_back(tag, only_ended=only_ended, limit=limit)
        if outcome == "back":
            log.info("delivery %s was lost with its holder and is back in its queue", tag)
        if outcome != "poison":
            return outcome == "back"
        message = self._deliveries.message(tag)
        name = (message and message_id(message)) or tag
        if message is None or not self._deliveries.bury(tag, name, only_ended=only_ended):
            return False
        log.error("message %s was lost with its holder %d times and went to the dead letters", name, limit)
        _call_each(self.on_buried, name, message)
        return True

    # ── the broker's return ──────────────────────────────────────────────────────────────────────────────────────

    def _arrive(self) -> bool:
        """The broker that answers does not know us: say what we hold, then wait at its gate. False if it is away."""
        first = self._identity is None
        identity = self._answering
        assert identity is not None
        try:
            if first and self._enter(identity, busy=False):
                self._identity = identity
                return True
            with self._lock:
                messages = {tag: held.message for tag, held in self._held.items() if not held.lost}
                messages |= {settlement.tag: settlement.message for settlement in self._backlog}
            self._deliveries.reinstate(messages, self.terms.lease_ms)
        except AWAY:
            return False
        log.warning("the broker was restarted or emptied; this process puts back %d deliveries", len(messages))
        self._identity = identity
        accounts = threading.Thread(target=self._report, args=(identity,), name="torch-return", daemon=True)
        accounts.start()
        self._recovery = Recovery(accounts)
        return True

    def _report(self, identity: str) -> None:
        """Have everybody in this process put back their accounts."""
        with self._reporting:  # one round at a time
            for callback in list(self.on_return):
                while self._identity == identity and not _done(callback):
                    time.sleep(RETRY_SECONDS)

    def _wait_at_gate(self, recovery: Recovery) -> None:
        if self._enter(str(self._identity), busy=recovery.busy):
            self._same_broker()
            self._recovery = None
            self._renew_at = self._sweep_at = 0.0

    def _enter(self, identity: str, *, busy: bool) -> bool:
        entry = self._gate.enter(identity, int(self.terms.recovery_seconds * 1000), self._epoch, busy=busy)
        self._epoch = max(self._epoch, entry.epoch)
        return entry.open

    def leave(self) -> None:
        """The process ends: whatever it holds goes back."""
        if os.getpid() != self._process:
            return
        with suppress(*AWAY, Returned, GateClosed):
            self._tell_backlog()
            for tag in self.held():
                self.requeue(tag)


def _client(parameters: Mapping[str, Any], greeted: Callable[[str], None]) -> redis.Redis:
    changed = {
        "decode_responses": True,
        "protocol": 2,
        "redis_connect_func": greeting(greeted),
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": ANSWER_SECONDS,
        "health_check_interval": 0,
    }
    if "path" in parameters:  # a socket's connection knows no such thing
        changed.pop("socket_connect_timeout")
    return redis.Redis(connection_pool=redis.ConnectionPool(**{**parameters, **changed}))


def _call_each(callbacks: Iterable[Callable[..., object]], *args: str) -> None:
    for callback in list(callbacks):
        try:
            callback(*args)
        except Exception:
            log.exception("a callback of the keeper failed")


def _done(callback: Callable[[], object]) -> bool:
    """The callback has put back its account, or never will."""
    from torch_tasks.errors import BrokerUnreachable

    try:
        callback()
    except (*AWAY, BrokerUnreachable) as error:
        log.warning("the broker is away while accounts are put back: %s", error)
        return False
    except Exception:
        log.exception("an account could not be put back")
    return True


# ── the keepers of this process ──────────────────────────────────────────────────────────────────────────────────

_keepers: dict[tuple[object, ...], Keeper] = {}
_lock = threading.Lock()


def keeper_for(parameters: Mapping[str, Any], terms: Terms) -> Keeper:
    """The one keeper that this process has for a broker, made if need be."""
    where = tuple(parameters.get(name) for name in ("host", "port", "path", "db", "username"))
    with _lock:
        if where not in _keepers:
            _keepers[where] = Keeper(parameters, terms)
        return _keepers[where]


def keepers() -> list[Keeper]:
    """All keepers of this process: one for each broker that it takes messages from."""
    return list(_keepers.values())


def keeper() -> Keeper | None:
    """The keeper of this process, if it takes messages from a broker."""
    return next(iter(_keepers.values()), None)


def keeper_of(tag: str) -> Keeper | None:
    """The keeper of this process that holds the delivery."""
    return next((keeper for keeper in keepers() if keeper.holds(tag)), None)


def _forget() -> None:
    """A forked child holds nothing."""
    global _lock
    _keepers.clear()
    _lock = threading.Lock()


def _leave() -> None:
    for each in keepers():
        each.leave()


os.register_at_fork(after_in_child=_forget)
atexit.register(_leave)
