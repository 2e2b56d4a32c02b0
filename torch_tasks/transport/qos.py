"""How many deliveries may a channel hold, and what becomes of them when it closes?"""

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
        """There is room for one more. The answer to a claim is read in any case: it may bring one."""
        return self.channel.claiming or not self.prefetch_count or self._room() > 0

    def can_consume_max_estimate(self) -> int:
        """How many more there is room for."""
        return max(self._room(), 0) if self.prefetch_count else 1

    def _room(self) -> int:
        return int(self.prefetch_count) - len(self.tags) - len(self.channel.keeper.orphans)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Know the message of a delivery, which the keeper holds already."""
        self._messages[delivery_tag] = message

    def get(self, delivery_tag: str) -> Any:
        """The message of a delivery, while somebody has it."""
        return self._messages[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        """The delivery is done with."""
        self.channel.keeper.ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """The message goes back to the front of its queue, or away."""
        if requeue:
            self.channel.keeper.requeue(delivery_tag)
        else:
            self.channel.keeper.ack(delivery_tag)

    def restore_unacked(self) -> None:
        """All go back, but for those whose task this process still works on: a lost connection does not end it."""
        if self.tags:
            self.channel.keeper.release(set(self.tags), _in_work())

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The channel closes."""
        self._on_collect.cancel()
        self.restore_unacked()


def _in_work() -> dict[str, Any]:
    """The messages of all requests that the pool of this process's Celery worker has got, by their tags."""
    state = sys.modules.get("celery.worker.state")
    if state is None:
        return {}
    requests = [*_members(state.active_requests), *_members(state.reserved_requests)]
    return {request.message.delivery_tag: request.message for request in requests}


def _members(requests: Iterable[Any]) -> list[Any]:
    while True:
        with suppress(RuntimeError):  # a thread of the pool began a task at this moment
            return list(requests)
