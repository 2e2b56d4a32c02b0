"""Makes one Celery app use the leased transport.

For an app with :class:`LeasedAMQP`, ``redis://`` and ``rediss://`` mean the leased transport; for every other app of
the process they mean kombu's own, whose table of transports stays as it is.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

import redis
from celery.app.amqp import AMQP
from kombu import Connection
from kombu.connection import ConnectionPool, PooledConnection
from kombu.utils.collections import HashedSeq
from kombu.utils.objects import cached_property

from torch_tasks.broker.reconciler import greeting
from torch_tasks.caller import own_desk
from torch_tasks.errors import NotThroughDesk
from torch_tasks.model.broker_users import BrokerRole, role_of
from torch_tasks.transport.channel import Transport
from torch_tasks.transport.leases import Leases
from torch_tasks.transport.looking import LookingTransport


class PublishingPool(redis.ConnectionPool):
    def __init__(self, **parameters: Any) -> None:
        #: The one that answered the latest new connection, be it one of this pool's or a consumer's own.
        self.server = ""
        # kombu's limit is meant for one channel; publishing takes at most one connection per thread.
        super().__init__(**{**parameters, "max_connections": None, "redis_connect_func": greeting(self.note_server)})

    def note_server(self, server: str) -> None:
        self.server = server


class PublishingPools:
    """The connections on which an app publishes and asks: one pool for all its channels."""

    def __init__(self) -> None:
        self._pools: dict[str, PublishingPool] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._make_new_lock)

    def pool_for(self, parameters: Mapping[str, Any]) -> PublishingPool:
        """The pool for these parameters. Like all of redis-py's, it starts empty in a forked child."""
        where = repr(sorted(parameters.items()))
        with self._lock:
            if where not in self._pools:
                self._pools[where] = PublishingPool(**parameters)
            return self._pools[where]

    def _make_new_lock(self) -> None:
        """Another thread may have held the lock when this child was forked."""
        self._lock = threading.Lock()


class NoTransport(Transport):
    """The transport of a process in an agent's pane: it refuses whatever does not go through the agent's desk."""

    def establish_connection(self) -> NoReturn:
        raise NotThroughDesk(
            "an agent's pane has no broker: only Torch's own tasks (torch.run) are sent from there. 'torch-tasks' and "
            "Torch() do the rest: cancel, agents, checkin, …"
        )


class LeasedConnection(Connection):
    """A connection of one app, with the leased transport behind a usual URL."""

    leases: Leases
    pools: PublishingPools

    def ensure_connection(
        self,
        errback: Any = None,
        max_retries: int | None = None,
        interval_start: float = 0.5,
        interval_step: float = 0.5,
        interval_max: float = 2.0,
        **options: Any,
    ) -> Any:
        """As kombu does, but with pauses of two seconds at most instead of thirty."""
        return super().ensure_connection(errback, max_retries, interval_start, interval_step, interval_max, **options)

    def get_transport_cls(self) -> Any:
        if own_desk():
            return NoTransport
        if self.transport_cls not in ("redis", "rediss"):
            return super().get_transport_cls()
        return LookingTransport if role_of(sys.argv) is BrokerRole.VIEWER else Transport

    def __eqhash__(self) -> HashedSeq:
        """kombu pools connections of the whole process by this: those of another app must not be equal to this one."""
        *where, port, options = super().__eqhash__()
        # The clone of a connection to a socket has a port, which the connection itself has not.
        return HashedSeq(self.leases, *where, port or Transport.default_port, options)

    def Pool(self, limit: int | None = None, **options: Any) -> ConnectionPool:  # noqa: N802 - kombu's own name for it
        """A pool of connections of this class; kombu's would hold connections of its own."""
        return _ConnectionPool(self, limit, **options)


class _ConnectionPool(ConnectionPool):
    def new(self) -> _PooledConnection:
        return _PooledConnection(self, **dict(self.connection._info(resolve=False)))


class _PooledConnection(LeasedConnection, PooledConnection):
    def __init__(self, pool: _ConnectionPool, **parameters: Any) -> None:
        self.leases, self.pools = pool.connection.leases, pool.connection.pools
        super().__init__(pool, **parameters)


class LeasedAMQP(AMQP):
    """Celery's AMQP, whose connections lease what they take. ``Celery(..., amqp=LeasedAMQP)``."""

    @cached_property
    def leases(self) -> Leases:
        return Leases()

    @cached_property
    def Connection(self) -> type[LeasedConnection]:  # noqa: N802 - Celery's own name for it
        class Connection(LeasedConnection):
            leases = self.leases
            pools = PublishingPools()

        return Connection
