"""With which user and password this process connects: read anew for each connection, so that passwords can change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from redis.credentials import CredentialProvider

from torch_tasks.broker.following import place_now
from torch_tasks.model.broker_address import OWN_PLACE, BrokerAddress
from torch_tasks.model.broker_moves import is_same_broker
from torch_tasks.model.broker_users import BrokerRole, read_logins, role_of
from torch_tasks.settings import settings
from torch_tasks.state_folder import BROKER_LOGINS


class OwnLogin(CredentialProvider):
    """The login of this process's role at the broker; none where the broker wants none."""

    def __init__(self, address: BrokerAddress | None = None) -> None:
        self._address = address

    def get_credentials(self) -> Any:  # redis-py does not say that it may be empty
        address = self._address or settings().broker()
        kept = read_logins(logins_file(address))
        if kept is None or not is_same_broker(settings().state.broker_moved, kept.place, address):
            return ()
        login = kept.logins.get(role_of(sys.argv)) or kept.logins[BrokerRole.PROGRAM]
        return (login.user, login.password)

    async def get_credentials_async(self) -> Any:
        return self.get_credentials()


def logins_file(address: BrokerAddress) -> Path:
    """Where the logins at this broker are kept: those of a machine's own beside its socket."""
    if address.place == OWN_PLACE and address.socket:
        return address.socket.with_name(BROKER_LOGINS)
    return settings().state.broker_logins


def let_flower_in() -> None:
    """Have Flower's own client of the broker go where this process does, and log in as it does.

    By itself it can name no user on a Unix socket, and would ask Sentinel only once.
    """
    from flower.utils import broker  # only where Flower runs

    ask = broker.RedisBase.queues

    async def queues(self: Any, names: Any) -> Any:
        options = self.redis.connection_pool.connection_kwargs
        if settings().broker().login is None:
            options.update(credential_provider=OwnLogin(), username=None, password=None)
        options.update(place_now(settings().broker()))
        return await ask(self, names)

    broker.RedisBase.queues = queues
