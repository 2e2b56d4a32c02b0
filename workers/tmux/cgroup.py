"""A control group for an agent's tmux server, in which the kernel enforces the agent's limits.

Where systemd runs the worker, the group is a scope of its own, because stopping the worker's unit would end every pane
in it. Elsewhere it is a group in a folder of cgroup v2 that was delegated to Torch.
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

log = logging.getLogger(__name__)

PREFIX = "torch-agent-"
"""Every agent's scope or group has a name that begins so."""
NO_LIMITS = Limits()

#: The first systemd whose scopes can live on when the kernel kills one of their processes for memory.
_WITH_OOM_POLICY = 253
_PERIOD_US = 100_000


def scope_words(name: str, wanted: PaneScope, limits: Limits = NO_LIMITS) -> tuple[str, ...]:
    """The words that run the command after them in a systemd scope for this agent; none if no scope is wanted."""
    if wanted == "never" or (wanted == "auto" and "INVOCATION_ID" not in os.environ):
        return ()
    if shutil.which("systemd-run") is None:
        if wanted == "auto":
            return ()
        raise AgentUnavailable(
            f"there is no systemd-run on PATH to give agent {name} a scope of its own; "
            "install systemd, or set TORCH_PANE_SCOPE to auto or never"
        )
    manager = () if os.geteuid() == 0 else ("--user",)
    unit = f"{PREFIX}{name}-{uuid.uuid4().hex[:8]}"
    properties = [word for pair in _scope_properties(limits) for word in ("--property", pair)]
    return ("systemd-run", *manager, "--scope", "--collect", "--quiet", "--unit", unit, *properties, "--")


def _scope_properties(limits: Limits) -> Iterator[str]:
    if _systemd_version() >= _WITH_OOM_POLICY:
        yield "OOMPolicy=continue"
    if limits.memory:
        yield f"MemoryMax={limits.memory}"
        yield "MemorySwapMax=0"
    if limits.cpu:
        yield f"CPUQuota={limits.cpu:.0%}"
    if limits.processes:
        yield f"TasksMax={limits.processes}"


@cache
def _systemd_version() -> int:
    output = subprocess.run(["systemd-run", "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"systemd (\d+)", output)
    return int(number[1]) if number else 0


def group_words(name: str, limits: Limits, parent: Path | None) -> tuple[str, ...]:
    """The words that run the command after them in a group for this agent; none without limits or a parent folder."""
    if parent is None or not limits.any:
        return ()
    group = parent / f"{PREFIX}{name}"
    try:
        group.mkdir(exist_ok=True)
        for file, value in _group_files(limits):
            (group / file).write_text(value)
        if limits.memory:
            with suppress(OSError):  # a kernel that does not count swap has no such file
                (group / "memory.swap.max").write_text("0")
    except OSError as error:
        log.warning("%s: no control group below %s, so the worker enforces the limits itself: %s", name, parent, error)
        with suppress(OSError):
            group.rmdir()
        return ()
    return joining_words(group, required=True)


def joining_words(group: Path | None, *, required: bool = False) -> tuple[str, ...]:
    """The words that run the command after them in this group; if that cannot be, where this process is."""
    if group is None:
        return ()
    joined = 'echo $$ >"$0" && exec "$@"' if required else '{ echo $$ >"$0"; } 2>/dev/null; exec "$@"'
    return ("sh", "-c", joined, str(group / "cgroup.procs"))


def remove_group(name: str, parent: Path | None) -> None:
    """Remove the agent's group; one in which a process still runs stays."""
    if parent is not None:
        with suppress(OSError):
            (parent / f"{PREFIX}{name}").rmdir()


def group_of(pid: int, name: str) -> Path | None:
    """The folder of the agent's own group or scope that this process is in, if it is in one."""
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


def _group_files(limits: Limits) -> Iterator[tuple[str, str]]:
    if limits.memory:
        yield "memory.max", str(limits.memory)
    if limits.cpu:
        yield "cpu.max", f"{int(limits.cpu * _PERIOD_US)} {_PERIOD_US}"
    if limits.processes:
        yield "pids.max", str(limits.processes)
