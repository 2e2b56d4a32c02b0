"""The leased transport: kombu's Redis transport, with deliveries that survive whatever dies.

A message is taken and leased in one step on the broker. The process that holds it renews the lease for as long as it
lives; when it dies, the message goes back to its queue, at the front and under a new delivery tag, so that nothing the
former holder does with the old tag has an effect. No process takes messages from a restarted broker until all live
processes have put back what it may have forgotten.

:class:`Deliveries` holds every statement, :class:`~torch_tasks.transport.leases.LeaseKeeper` renews and settles what
this process holds, :class:`Gate` distinguishes a restarted broker from the one that the fleet knows.
:mod:`~torch_tasks.transport.channel` is what kombu sees of it, :mod:`~torch_tasks.transport.amqp` what Celery sees.
"""

from __future__ import annotations

from torch_tasks.transport.deliveries import Deliveries
from torch_tasks.transport.gate import Gate, GateState

__all__ = ["Deliveries", "Gate", "GateState"]
