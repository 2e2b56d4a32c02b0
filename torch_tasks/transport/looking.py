"""The transport of a process that may only look: it asks workers and hears events, and takes no task."""

from __future__ import annotations

import logging
import uuid
from queue import Empty
from typing import Any

from kombu.utils.encoding import bytes_to_str

from torch_tasks.errors import SignatureRefused, Unreadable
from torch_tasks.transport.channel import Channel, Transport
from torch_tasks.transport.deliveries import queue_of
from torch_tasks.transport.envelope import delivered

log = logging.getLogger(__name__)


class LookingChannel(Channel):
    """Takes the answers to its questions without a lease: it writes nothing but where they are to go."""

    def _brpop_start(self, timeout: float | None = None) -> None:
        if queues := self._queue_cycle.consume(len(self.active_queues)):
            lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
            self._send("BRPOP", *lists, self.brpop_timeout or 1)

    def _brpop_read(self, **options: Any) -> bool:
        answer = self._answer("BRPOP")
        if not answer:
            raise Empty
        queue, text = queue_of(bytes_to_str(answer[0])), answer[1].decode(errors="replace")
        try:
            message = delivered(text, uuid.uuid4().hex, limit=self.limit_bytes, queue=queue)
        except (Unreadable, SignatureRefused) as error:
            log.error("an answer in %s is refused and dropped: %s", queue, error)
            raise Empty from None
        self.connection._deliver(message, queue)
        return True

    def _interrupt_wait(self) -> None:
        """Nothing: it waits for a moment at most."""


class LookingTransport(Transport):
    Channel = LookingChannel
