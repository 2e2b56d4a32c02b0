"""What a channel has taken and not settled: kombu asks here whether there is room for more."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from kombu.transport import virtual

if TYPE_CHECKING:
    from torch_tasks.transport.channel import Channel


class QoS(virtual.QoS):
    """The unsettled deliveries of one channel; they belong to the keeper, and may outlive the channel."""

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        #: The tags that count against the limit.
        self.tags: set[str] = set()
        self._messages: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def can_consume(self) -> bool:
        """Whether there is room for one more; the answer to a claim must be read in any case, as it may bring one."""
        return self.channel.claiming or not self.prefetch_count or self._room() > 0

    def can_consume_max_estimate(self) -> int:
        return max(self._room(), 0) if self.prefetch_count else 1

    def _room(self) -> int:
        return int(self.prefetch_count) - len(self.tags) - len(self.channel.keeper.orphans)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Remember the message of a delivery, which the keeper holds already."""
        self._messages[delivery_tag] = message

    def get(self, delivery_tag: str) -> Any:
        return self._messages[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        self.channel.keeper.ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put the message back to the front of its queue, or drop it."""
        if requeue:
            self.channel.keeper.requeue(delivery_tag)
        else:
            self.channel.keeper.ack(delivery_tag)

    def restore_unacked(self) -> None:
        """Put all back except those whose task this process still works on: a lost connection does not end a task."""
        if self.tags:
            self.channel.keeper.release(set(self.tags), _in_work())

    def restore_unacked_once(self, stderr: Any = None) -> None:
        self._on_collect.cancel()
        self.restore_unacked()


def _in_work() -> dict[str, Any]:
    """The messages of all requests in the pool of this process's Celery worker, by their tags."""
    state = sys.modules.get("celery.worker.state")
    if state is None:
        return {}
    requests = [*_members(state.active_requests), *_members(state.reserved_requests)]
    return {request.message.delivery_tag: request.message for request in requests}


def _members(requests: Iterable[Any]) -> list[Any]:
    while True:
        with suppress(RuntimeError):  # a thread of the pool began a task at this moment
            return list(requests)
