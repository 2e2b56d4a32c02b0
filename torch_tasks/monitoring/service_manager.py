"""Tells systemd whether this process can do its job, where a unit of ``Type=notify`` runs it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

from torch_tasks.system.loops import Loop
from torch_tasks.visible_text import one_line

SOCKET_VARIABLE = "NOTIFY_SOCKET"
_UNTIL_READY_SECONDS = 1.0
_WHEN_READY_SECONDS = 5.0
_LONGEST_STATUS = 500


class ReadinessNotice:
    """Says ready once nothing is lacking, what is lacking whenever something is, and each time that the process lives.

    ``systemctl status`` shows it. The unit's watchdog ends a process that says nothing any more.
    """

    def __init__(self, address: str, lacks: Callable[[], Sequence[str]]) -> None:
        self.loop = Loop("tell systemd", self._play_round)
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._lacks = lacks

    def _play_round(self) -> float:
        lacks = self._lacks()
        state = ["WATCHDOG=1", f"STATUS={one_line('; '.join(lacks) or 'ready', _LONGEST_STATUS)}"]
        self._say(*state, *([] if lacks else ["READY=1"]))
        return _UNTIL_READY_SECONDS if lacks else _WHEN_READY_SECONDS

    def _say(self, *lines: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
            to_systemd.sendto("\n".join(lines).encode(), self._address)


def notice_loops(lacks: Callable[[], Sequence[str]]) -> list[Loop]:
    """The loop that tells systemd, or none where nobody asked; no process that is started from now on can tell it."""
    address = os.environ.pop(SOCKET_VARIABLE, None)
    return [ReadinessNotice(address, lacks).loop] if address else []
