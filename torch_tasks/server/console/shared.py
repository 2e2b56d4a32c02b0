"""Replies that several viewers of the console share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch_tasks.operations.operation import Operation
from torch_tasks.operations.performing import perform_here
from torch_tasks.security.decision import require

SHARED_SECONDS = 0.25
"""So old may a reply be that several viewers share; a page asks later than that after an event (``news.js``)."""
_MOST_SHARED = 256


@dataclass
class _Shared:
    reply: Any = None
    asked_at: float = float("-inf")
    asking: threading.Lock = field(default_factory=threading.Lock)


class SharedReplies:
    """Replies that are the same for all who may see them: the fleet is asked once, however many look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str], _Shared] = {}
        self._changing = threading.Lock()

    def reply(self, operation: Operation[Any, Any], asked: Any, oldest: float = SHARED_SECONDS) -> Any:
        """The reply that is a moment old, or a new one; :class:`NotAllowed` for a caller that may not see it."""
        require(operation.name, operation.right, operation.about(asked), operation.also(asked))
        shared = self._place((operation.name, asked.model_dump_json()))
        with shared.asking:
            if shared.asked_at + oldest <= self._clock():
                shared.reply = perform_here(operation, asked)
                shared.asked_at = self._clock()
            return shared.reply

    def _place(self, key: tuple[str, str]) -> _Shared:
        with self._changing:
            if key not in self._kept and len(self._kept) >= _MOST_SHARED:
                del self._kept[next(iter(self._kept))]
            return self._kept.setdefault(key, _Shared())
