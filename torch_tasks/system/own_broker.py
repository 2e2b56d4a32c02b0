"""Whether this machine's own broker was killed, also if its address is still on the disk."""

from __future__ import annotations

import socket

from torch_tasks.state_folder import StateFolder
from torch_tasks.system.processes import Processes


def is_gone(state: StateFolder) -> bool:
    """Whether no broker runs in this state folder, and no process is there that would start it again."""
    processes = Processes(state.run)
    return not any(processes.find(name) for name in ("broker", "up")) and not _listens(state)


def _listens(state: StateFolder) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(state.broker_socket))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError:  # its queue is full, or it is not ours to ask
            return True
    return True
