"""A control group of its own for an agent's tmux server, which keeps the agent's limits.

Where systemd runs the worker, it is a scope: stopping a systemd unit ends every process of its control group, panes
included, and a server in a scope of its own is no part of the worker's unit. Elsewhere it is a group in a folder of
cgroup v2 that was delegated to Torch.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from torch_tasks.errors import AgentUnavailable
from torch_tasks.model.limits import Limits
from torch_tasks.settings import PaneScope

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


log = logging.getLogger(__name__)

_PERIOD_US = 100_000
PREFIX = "torch-agent-"
"""How the name of every agent's scope or group begins."""


def group_words(name: str, limits: Limits, parent: Path | None) -> tuple[str, ...]:
    """The words before a command that runs it in this agent's group; none where there is none, or no need for one."""
    if parent is None or not limits.any:
        return ()
    group = parent / f"{PREFIX}{name}"
    try:
        group.mkdir(exist_ok=True)
        for file, value in _files(limits):
            (group / file).write_text(value)
        if limits.memory:
            with suppress(OSError):  # a kernel that does not count swap has no such file
                (group / "memory.swap.max").write_text("0")
    except OSError as error:
        log.warning("%s: no control group below %s, its worker keeps the limits: %s", name, parent, error)
        with suppress(OSError):
            group.rmdir()
        return ()
    return ("sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"))


def remove_group(name: str, parent: Path | None) -> None:
    """Take the group away, once nothing runs in it."""
    if parent is not None:
        with suppress(OSError):
            (parent / f"{PREFIX}{name}").rmdir()


def group_of(pid: int, name: str) -> Path | None:
    """The agent's own group or scope that this process is in, where the kernel keeps the limits; none without one."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            number, _, path = line.split(":", 2)
            if number == "0" and Path(path).name.startswith(f"{PREFIX}{name}"):
                return next((mount / path.lstrip("/") for mount in _mounts()), None)
    return None


def _mounts() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            yield Path(place)


def _files(limits: Limits) -> Iterator[tuple[str, str]]:
    if limits.memory:
        yield "memory.max", str(limits.memory)
    if limits.cpu:
        yield "cpu.max", f"{int(limits.cpu * _PERIOD_US)} {_PERIOD_US}"
    if limits.processes:
        yield "pids.max", str(limits.processes)
