"""A control group of its own for an agent's tmux server, where systemd runs the worker.

Stopping a systemd unit ends every process of its control group, panes included. A server in a scope of its own is no
part of the worker's unit: neither a stop, nor a restart, nor an out-of-memory kill of the unit reaches it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from functools import cache

from torch_tasks.errors import AgentUnavailable
from torch_tasks.model.limits import Limits
from torch_tasks.settings import PaneScope
from torch_tasks.workers.tmux.group import PREFIX

NONE = Limits()
"""No limits."""

#: The first systemd whose scopes can be told to live on when the kernel kills one of their processes for memory.
_WITH_OOM_POLICY = 253


def scope_words(name: str, wanted: PaneScope, limits: Limits = NONE) -> tuple[str, ...]:
    """The words before a command that runs it in a scope of this agent's, within its limits; none if none is wanted."""
    if wanted == "never" or (wanted == "auto" and "INVOCATION_ID" not in os.environ):
        return ()
    if shutil.which("systemd-run") is None:
        if wanted == "auto":
            return ()
        raise AgentUnavailable(
            f"there is no systemd-run on PATH to give agent {name} a scope of its own; "
            "install systemd, or set TORCH_PANE_SCOPE to auto or never"
        )
    whose = () if os.geteuid() == 0 else ("--user",)
    policy = ("--property", "OOMPolicy=continue") if _version() >= _WITH_OOM_POLICY else ()
    unit = f"{PREFIX}{name}-{uuid.uuid4().hex[:8]}"
    properties = [word for pair in _properties(limits) for word in ("--property", pair)]
    return ("systemd-run", *whose, "--scope", "--collect", "--quiet", "--unit", unit, *policy, *properties, "--")


def _properties(limits: Limits) -> Iterator[str]:
    if limits.memory:
        yield f"MemoryMax={limits.memory}"
        yield "MemorySwapMax=0"
    if limits.cpu:
        yield f"CPUQuota={limits.cpu:.0%}"
    if limits.processes:
        yield f"TasksMax={limits.processes}"


@cache
def _version() -> int:
    said = subprocess.run(["systemd-run", "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"systemd (\d+)", said)
    return int(number[1]) if number else 0
