"""The leased transport: kombu's Redis transport, with deliveries that survive whatever dies.

A message is taken and leased in one step on the broker. The process that holds it renews the lease for as long as it
lives; when it dies, the message goes back to its queue, at the front and under a new delivery tag, so that whatever
the former holder still says about the old tag touches nothing. Nobody takes messages from a broker that was restarted
until everybody who lives has put back what it may have forgotten.

:class:`Deliveries` holds every statement, :class:`~torch_tasks.transport.leases.LeaseKeeper` renews and settles what
this process holds, :class:`Gate` tells a broker that was restarted from the one that everybody knows.
:mod:`~torch_tasks.transport.channel` is what kombu sees of it, :mod:`~torch_tasks.transport.amqp` what Celery does.
"""

from __future__ import annotations

from torch_tasks.transport.deliveries import Deliveries
from torch_tasks.transport.gate import Gate, GateState

__all__ = ["Deliveries", "Gate", "GateState"]
