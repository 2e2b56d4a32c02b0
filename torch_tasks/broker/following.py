"""Connections that go to where the broker is at that moment, and are ended when it is elsewhere."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakSet

from redis.connection import AbstractConnection, Connection, DefaultParser, UnixDomainSocketConnection, parse_url
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from torch_tasks.broker.moved import LONGEST_NOTE, BrokerMoved, latest, obey
from torch_tasks.broker.sentinels import NoQuorum, Replicas, Sentinels
from torch_tasks.broker.tls import client_options
from torch_tasks.keys import BROKER_MOVED
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.settings import settings
from torch_tasks.system.loops import Loop

LOOK_SECONDS = 1.0
"""How often a process with open connections asks whether its primary is still the one."""
_MOVES = 5
"""How many moves a process that was away follows at once."""


_UNNAMED: dict[str, Any] = {"driver_info": None}
"""Or redis-py reads its version from the disk for each connection, in 5 ms, and tells the server in two commands."""


class NotPrimary(NoConnection):
    """The server that answers is not the one that may be written to: a replica, or a primary without its replicas."""


# To redis-py these would be errors of one command alone, on a connection that stays good.
DefaultParser.EXCEPTION_CLASSES |= {"UNBLOCKED": NotPrimary, "NOREPLICAS": NotPrimary}


class FollowingConnection(AbstractConnection):
    """Where the other connections of redis-py have an address, this one asks for it each time it connects."""

    def __init__(self, *, follows: BrokerAddress, **options: Any) -> None:
        self._follows = follows
        self._target = self.via = follows
        """The server, and the address by which it was found."""
        kept = {name: value for name, value in options.items() if name not in _OF_A_PLACE and name[:4] != "ssl_"}
        super().__init__(**{**kept, **_UNNAMED})
        self._keepalive = {name: options[name] for name in _KEEPALIVE if name in options}
        self.host, self.port = str(follows), 0

    def repr_pieces(self) -> list[tuple[str, Any]]:
        return [("follows", str(self._follows)), ("db", self.db)]

    def _connect(self) -> Any:
        self._target = target = self._place_now()
        return self._opener(target)._connect()

    def _place_now(self) -> BrokerAddress:
        self.via = latest(self._follows)
        if not self.via.sentinels:
            return self.via
        watch = watch_of(self.via)
        watch.note(self)
        return watch.primary()

    def _opener(self, target: BrokerAddress) -> Any:
        """A connection of redis-py's own that opens a socket there."""
        options: dict[str, Any] = parse_url(target.plain_url)  # type: ignore[no-untyped-call]
        made: type[AbstractConnection] = options.pop("connection_class", Connection)
        keepalive = {} if made is UnixDomainSocketConnection else self._keepalive
        seconds = {"socket_timeout": self.socket_timeout, "socket_connect_timeout": self.socket_connect_timeout}
        return made(
            **{**client_options(target, settings()), **options, **keepalive, **seconds, **_UNNAMED, "protocol": 2}
        )

    def _host_error(self) -> str:
        return str(self._target)

    def connect_check_health(self, *args: Any, **options: Any) -> None:
        """As redis-py does; where the broker has moved, to its next server, once for each move."""
        for _ in range(_MOVES):
            try:
                super().connect_check_health(*args, **options)
                return
            except BrokerMoved:
                continue
        raise NoConnection(
            f"the broker of {self._follows} has moved more than {_MOVES} times since this machine reached it. Tell it "
            "where the broker is: 'torch-tasks broker follow URL'"
        )

    def on_connect_check_health(self, *args: Any, **options: Any) -> None:
        super().on_connect_check_health(*args, **options)
        if self.via.sentinels:
            self._require_primary()
        if note := self._note():
            obey(note, self._follows, self.via)

    def _note(self) -> str:
        """What the server says of a move; a user that may not ask needs not know."""
        self.send_command("GETRANGE", BROKER_MOVED, 0, LONGEST_NOTE, check_health=False)  # type: ignore[no-untyped-call]
        try:
            answer = self.read_response()
        except ResponseError:
            return ""
        return answer.decode() if isinstance(answer, bytes) else str(answer)

    def _require_primary(self) -> None:
        """A server that Sentinel has just named may not know yet that it is the primary, or not know that it was."""
        self.send_command("INFO", "replication", check_health=False)  # type: ignore[no-untyped-call]
        answer = self.read_response()
        text = answer.decode() if isinstance(answer, bytes) else str(answer)
        if "role:master" not in text:
            raise NotPrimary(f"{self._target}, which Sentinel names, is a replica")

    def read_response(self, *args: Any, **options: Any) -> Any:
        """As redis-py does, but a server that may not be written to any more is left at once."""
        try:
            return super().read_response(*args, **options)
        except (ReadOnlyError, NotPrimary) as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise NotPrimary(f"{self._target} takes nothing: {error}") from error

    @property
    def target(self) -> BrokerAddress:
        """Where it was connected last."""
        return self._target

    def end(self) -> None:
        """End it from another thread: whoever reads from it or writes to it next connects again."""
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


_KEEPALIVE = ("socket_keepalive", "socket_keepalive_options")
_OF_A_PLACE = frozenset({"host", "port", "path", "socket_type", *_KEEPALIVE})


def followed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """These parameters of a connection of kombu's or Celery's; if they name this fleet's broker, it is followed."""
    address = settings().broker()
    named = parse_url(address.plain_url)  # type: ignore[no-untyped-call]
    if any(parameters.get(name) != named.get(name) for name in ("host", "port", "path")):
        return dict(parameters)
    return {**parameters, "connection_class": FollowingConnection, "follows": address}


def place_now(address: BrokerAddress) -> dict[str, Any]:
    """Host and port of the primary at this moment, for a broker that Sentinel watches."""
    return dict(zip(("host", "port"), watch_of(address).primary().door, strict=True)) if address.sentinels else {}


class PrimaryWatch:
    """Which server is the primary, for one broker that Sentinel watches; ends connections to any other.

    While no Sentinel that sees most of the others names a primary, there is none: whoever is cut off with a former
    primary must not go on with it.
    """

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._sentinels = Sentinels(address)
        self._open: WeakSet[FollowingConnection] = WeakSet()
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._unknown_since: float | None = None
        self._replicas: tuple[float, Replicas] | None = None

    def primary(self) -> BrokerAddress:
        """The server that Sentinel names; redis-py's ConnectionError if it names none."""
        return self._address.at(*self._sentinels.primary())

    def replicas(self) -> Replicas:
        """Its replicas, as Sentinel knew them not long ago; redis-py's ConnectionError if it does not say."""
        now = time.monotonic()
        if self._replicas is None or now - self._replicas[0] > LOOK_SECONDS:
            self._replicas = now, self._sentinels.replicas()
        return self._replicas[1]

    def most_see_well(self, server: BrokerAddress) -> bool:
        """Whether most of all Sentinels, asked now, see this server well as the primary."""
        return self._sentinels.most_see_well(server.door)

    def note(self, connection: FollowingConnection) -> None:
        """Look after a connection from now on."""
        with self._lock:
            self._open.add(connection)
            if self._loop is None:
                self._loop = Loop("torch-primary", self._look, pause=LOOK_SECONDS, delay=LOOK_SECONDS)
                self._loop.start()

    def _look(self) -> None:
        try:
            primary = self.primary()
        except NoQuorum:
            self._end_all_but(None)
        except (NoConnection, NoAnswer):
            now = time.monotonic()
            self._unknown_since = self._unknown_since or now
            if now - self._unknown_since >= settings().lease_seconds:
                self._end_all_but(None)
        else:
            self._unknown_since = None
            self._end_all_but(primary)

    def _end_all_but(self, primary: BrokerAddress | None) -> None:
        with self._lock:
            others = [one for one in self._open if one.via == self._address and one.target != primary]
        for connection in others:
            connection.end()


@cache
def watch_of(address: BrokerAddress) -> PrimaryWatch:
    """The one of this process."""
    return PrimaryWatch(address)


os.register_at_fork(after_in_child=watch_of.cache_clear)
