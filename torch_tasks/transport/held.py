"""The deliveries that this process holds, and the prefetch limit that each counts against."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref


@dataclass
class HeldDelivery:
    message: str
    #: The tags that count against the same prefetch limit.
    group: set[str]
    #: Whether another process may have it by now; it still counts until its run has ended.
    lost: bool = False
    #: The object that can still settle it, now that its channel is gone.
    settler: ReferenceType[Any] | None = None


class HeldDeliveries:
    """The deliveries of one process; safe for all its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, HeldDelivery] = {}
        #: Tags whose channel is gone: they count against the limit of the next channel.
        self.orphans: set[str] = set()

    def add(self, tag: str, message: str, group: set[str]) -> None:
        """Hold a delivery; it counts among its ``group``."""
        with self._lock:
            group.add(tag)
            self._held[tag] = HeldDelivery(message, group)

    def remove(self, tag: str) -> str | None:
        """Hold it no longer; returns its message if this process still had it."""
        with self._lock:
            held = self._held.pop(tag, None)
            if held is None:
                return None
            held.group.discard(tag)
            return None if held.lost else held.message

    def lose(self, tag: str) -> str | None:
        """Mark it as lost to another process; returns its message if this process had it until now."""
        with self._lock:
            held = self._held.get(tag)
            if held is None or held.lost:
                return None
            held.lost = True
            return held.message

    def orphan(self, tag: str, settler: object) -> None:
        """Keep it without its channel until the settler has settled it."""
        with self._lock:
            if held := self._held.get(tag):
                held.group.discard(tag)
                held.group, held.settler = self.orphans, ref(settler)
                self.orphans.add(tag)

    def orphans_without_settler(self) -> list[str]:
        """Orphans that nothing can settle any more."""
        with self._lock:
            orphans = [(tag, self._held[tag].settler) for tag in self.orphans]
        return [tag for tag, settler in orphans if settler is not None and settler() is None]

    def messages(self) -> dict[str, str]:
        """The messages by their tags, without the lost ones."""
        with self._lock:
            return {tag: held.message for tag, held in self._held.items() if not held.lost}

    def message(self, tag: str) -> str | None:
        """The message, if this process has the delivery."""
        held = self._held.get(tag)
        return None if held is None or held.lost else held.message
