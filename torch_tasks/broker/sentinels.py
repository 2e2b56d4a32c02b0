"""Asks Sentinel which server is the primary, which replicas it has, and whether most Sentinels say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry
from redis.utils import str_if_bytes

from torch_tasks.broker.tls import client_options
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.settings import settings

ANSWER_SECONDS = 1.0
"""A Sentinel that takes longer is passed over."""


class NoQuorum(NoConnection):
    """The Sentinels that answer see too few of the others: they are cut off, maybe with a former primary."""


class Replicas(NamedTuple):
    """The replicas of a primary, as a Sentinel knows them."""

    known: int
    """One of these is made the primary when the primary is gone."""
    reached: int
    """Those that answer it."""


@dataclass(frozen=True)
class View:
    """What one Sentinel says of the primary."""

    sentinel: str
    """The Sentinel's own id."""
    others: Mapping[str, tuple[str, int]]
    """The other Sentinels that it knows: host and port by their ids."""
    primary: tuple[str, int]
    flags: frozenset[str]
    """How the primary is to it: down, or being replaced, among others."""

    def sees_well(self, place: tuple[str, int]) -> bool:
        """Whether this server is the primary to it, answers it, and is not being replaced."""
        return self.primary == place and not self.flags & _UNWELL


_NO_VIEW = (redis.ResponseError, NoConnection, NoAnswer)
_UNWELL = frozenset({"s_down", "o_down", "disconnected", "failover_in_progress"})


def have_majority(views: Sequence[View], place: tuple[str, int]) -> bool:
    """Whether most of all Sentinels that there are see this server well as the primary.

    A replica is made the primary only by most of them, so not before one of these has learnt that this one is down.
    """
    there_are = len({sentinel for view in views for sentinel in (view.sentinel, *view.others)})
    return 2 * len({view.sentinel for view in views if view.sees_well(place)}) > there_are


class Sentinels:
    """The Sentinels of one address."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._name = address.watched_name
        self._clients = [_client(address, host, port) for host, port in address.sentinels]
        self._unlisted: dict[tuple[str, int], redis.Redis] = {}

    def primary(self) -> tuple[str, int]:
        """Host and port of the primary, by the first Sentinel that answers and reaches most of the others.

        :class:`NoQuorum` if those that answer do not; redis-py's ConnectionError if none answers.
        """
        said: list[str] = []
        cut_off = False
        for client in list(self._clients):
            try:
                found = self._ask(client)
            except redis.ResponseError as error:
                cut_off = cut_off or str(error).startswith("NOQUORUM")
                said.append(str(error))
            except (NoConnection, NoAnswer) as error:
                said.append(str(error))
            else:
                self._prefer(client)
                return found
        words = f"no Sentinel names a primary of {self._name}: {'; '.join(dict.fromkeys(said))}"
        raise (NoQuorum if cut_off else NoConnection)(words)

    def replicas(self) -> Replicas:
        """The replicas, by the first Sentinel that answers; redis-py's ConnectionError if none does."""
        for client in list(self._clients):
            try:
                (found,) = self._answers(client, "REPLICAS")
            except _NO_VIEW:
                continue
            return Replicas(len(found), sum(not _flags(_pairs(one)) & _UNWELL for one in found))
        raise NoConnection(f"no Sentinel says which replicas {self._name} has")

    def most_see_well(self, place: tuple[str, int]) -> bool:
        """Whether most Sentinels, asked now one after the other, see this server well as the primary."""
        views: list[View] = []
        for view in self._views():
            views.append(view)
            if have_majority(views, place):
                return True
        return False

    def _views(self) -> Iterator[View]:
        """What those of the address say, then, if they are too few for a majority, the others that they name."""
        others: dict[str, tuple[str, int]] = {}
        said: set[str] = set()
        for client in list(self._clients):
            try:
                view = self._view(client)
            except _NO_VIEW:
                self._ask_last(client)
                continue
            said.add(view.sentinel)
            others |= view.others
            yield view
        if 2 * len(self._clients) <= len(said | others.keys()):
            for sentinel in others.keys() - said:
                with suppress(*_NO_VIEW):
                    yield self._view(self._unlisted_at(*others[sentinel]))

    def _view(self, client: redis.Redis) -> View:
        place, primary, others, own_id = self._answers(client, "GET-MASTER-ADDR-BY-NAME", "MASTER", "SENTINELS", "MYID")
        known = [_pairs(one) for one in others]
        return View(
            sentinel=str(str_if_bytes(own_id)),
            others={one["runid"]: (one["ip"], int(one["port"])) for one in known},
            primary=self._place_in(place),
            flags=_flags(_pairs(primary)),
        )

    def _unlisted_at(self, host: str, port: int) -> redis.Redis:
        if (host, port) not in self._unlisted:
            self._unlisted[host, port] = _client(self._address, host, port)
        return self._unlisted[host, port]

    def _answers(self, client: redis.Redis, *questions: str) -> list[Any]:
        with client.pipeline(transaction=False) as pipe:
            for question in questions:
                name = () if question == "MYID" else (self._name,)
                pipe.execute_command("SENTINEL", question, *name)  # type: ignore[no-untyped-call]
            return pipe.execute()

    def _ask(self, client: redis.Redis) -> tuple[str, int]:
        _, place = self._answers(client, "CKQUORUM", "GET-MASTER-ADDR-BY-NAME")
        return self._place_in(place)

    def _place_in(self, place: Any) -> tuple[str, int]:
        if not place:
            raise NoConnection(f"it does not know {self._name}")
        host, port = map(str_if_bytes, place)
        return str(host), int(port)

    def _prefer(self, client: redis.Redis) -> None:
        """Ask this one first the next time."""
        self._clients.sort(key=lambda other: other is not client)

    def _ask_last(self, client: redis.Redis) -> None:
        self._clients.sort(key=lambda other: other is client)


def _pairs(answer: Any) -> dict[str, str]:
    """Names and values, which Sentinel gives in turn."""
    words = [str(str_if_bytes(word)) for word in answer]
    return dict(zip(words[::2], words[1::2], strict=True))


def _flags(described: Mapping[str, str]) -> frozenset[str]:
    return frozenset(described["flags"].split(","))


def _client(address: BrokerAddress, host: str, port: int) -> redis.Redis:
    secured: dict[str, Any] = client_options(address, settings())
    password = settings().broker_sentinel_password
    return redis.Redis(
        host,
        port,
        password=password.get_secret_value() if password else None,
        ssl=bool(secured),
        **secured,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
