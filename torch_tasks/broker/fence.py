"""Whether what was just written may be acted on, where Sentinel may have made another server the primary meanwhile.

A primary tells its replicas of a write after it has answered. One that is cut off from them takes writes of which its
successor never hears, and whoever is cut off with it cannot tell before its Sentinel can. So what must not be done on
both sides of a cut waits for one of two answers, both given after the write:

- All replicas of which Sentinel knows have it. Whichever of them is the next primary has it, too. One of several
  would not do: the one that answers may be cut off together with the primary, and another one be promoted.
- A replica is missing (it is down, or slow, or on the other side of a cut), and most of the Sentinels see this server
  well as the primary. Whoever is cut off with a primary reaches too few of them; that holds from the moment of the
  cut, not only after ``down-after-milliseconds``.

The second answer is no proof: a replica that had fallen behind before a cut may be promoted by those on its side,
less than a moment after they have answered. The first one is, as long as replicas keep what they have.
"""

from __future__ import annotations

import redis

from torch_tasks import keys
from torch_tasks.broker.connection import broker_errors
from torch_tasks.broker.following import FollowingConnection, watch_of
from torch_tasks.broker.moved import latest
from torch_tasks.broker.reconciler import identity_in
from torch_tasks.broker.sentinels import Replicas
from torch_tasks.errors import BrokerForgot, KnownToOneServer
from torch_tasks.model.broker_address import BrokerAddress

WAIT_SECONDS = 0.5
"""How long replicas have to say that they have a write: many times what that takes, also on a busy machine."""


def have_all(acknowledged: int, replicas: Replicas) -> bool:
    """Whether every server has it that could be the next primary."""
    return 0 < replicas.known <= acknowledged


class Fence:
    """The fence of one broker. Where the address is no Sentinel's, it asks nothing and holds nobody up."""

    def __init__(self, client: redis.Redis, address: BrokerAddress) -> None:
        self._client = client
        self._address = address

    def require_known(self, what: str, identity: str) -> None:
        """Raise :class:`KnownToOneServer` if what was just written to this server process may be known to it alone."""
        via = latest(self._address)
        if not via.sentinels:
            return
        watch = watch_of(via)
        with broker_errors(self._address):
            replicas = watch.replicas()
            server, acknowledged = self._acknowledged(identity, replicas.reached)
            if have_all(acknowledged, replicas) or watch.most_see_well(server):
                return
        raise KnownToOneServer(
            f"{what} is known to {server} alone: {acknowledged} of its {replicas.known} replicas have it, and too few "
            "Sentinels say that it is still the primary. This waits until they do, or until another server is"
        )

    def _acknowledged(self, identity: str, replicas: int) -> tuple[BrokerAddress, int]:
        """The server, and how many of its replicas have what was written to it so far."""
        pool = self._client.connection_pool
        with self._client.pipeline(transaction=False) as pipe:
            pipe.connection = connection = pool.get_connection()
            assert isinstance(connection, FollowingConnection)
            server = connection.target
            pipe.incr(keys.FENCE)  # a connection waits for its own last write, and for all that came before
            pipe.execute_command("WAIT", replicas, int(WAIT_SECONDS * 1000))  # type: ignore[no-untyped-call]
            pipe.info("server")
            written, acknowledged, info = pipe.execute(raise_on_error=False)
        for answer in (written, info):
            if isinstance(answer, Exception):
                raise answer
        if connection.target != server or identity_in(info, self._client) != identity:
            raise BrokerForgot("the broker was restarted, or another server is the primary, since the task was taken")
        # An old DragonflyDB does not know WAIT.
        return server, acknowledged if isinstance(acknowledged, int) else 0
