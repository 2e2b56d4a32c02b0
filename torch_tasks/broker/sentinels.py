"""Asks Sentinel which server is the primary."""

from __future__ import annotations

from typing import Any

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


class Sentinels:
    """The Sentinels of one address."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._name = address.watched_name
        self._clients = [_client(address, host, port) for host, port in address.sentinels]

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

    def _ask(self, client: redis.Redis) -> tuple[str, int]:
        with client.pipeline(transaction=False) as pipe:
            for question in ("CKQUORUM", "GET-MASTER-ADDR-BY-NAME"):
                pipe.execute_command("SENTINEL", question, self._name)  # type: ignore[no-untyped-call]
            _, place = pipe.execute()
        if not place:
            raise NoConnection(f"it does not know {self._name}")
        host, port = map(str_if_bytes, place)
        return str(host), int(port)

    def _prefer(self, client: redis.Redis) -> None:
        """Ask this one first the next time."""
        self._clients.sort(key=lambda other: other is not client)


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
