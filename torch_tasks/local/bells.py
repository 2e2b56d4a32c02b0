"""How other processes of a machine wake its agents' workers: each listens at a FIFO, the bell in its agent's folder.

What happened stands in a file before the bell rings, so a bell that nobody hears loses nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def ring(agent_folder: Path) -> None:
    """Ring the agent's bell if there is one; nobody need hear it."""
    try:
        handle = os.open(agent_folder / "bell", os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return
    with suppress(OSError):  # it has been rung more often than anybody cares to count
        os.write(handle, b"x")
    os.close(handle)


def ring_all(state_dir: Path) -> None:
    """Ring the bells of all agents of this machine."""
    for folder in state_dir.glob("agents/*"):
        ring(folder)
