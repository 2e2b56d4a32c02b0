"""The processes of a terminal session, which can outlive the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import psutil

#: How long killed processes may take to go.
_GONE_SECONDS = 5.0


def end_session(leader: int, agent_id: str) -> None:
    """Kill what is left of the session that this process led: programs that ignore the end of their terminal."""
    left = list(_members(leader, agent_id))
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_GONE_SECONDS)


def _members(leader: int, agent_id: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            # The number may by now lead somebody else's session; ours know which agent they belong to.
            if os.getsid(process.pid) == leader and process.environ().get("TORCH_AGENT_ID") == agent_id:
                yield process
