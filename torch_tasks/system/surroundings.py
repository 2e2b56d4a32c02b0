"""What a process takes from the one that starts it, besides what it is told.

One may fork for another if they agree on it.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

READ_LATE = ("TORCH_", "FLOWER_", "CELERY_LOG_", "_MP_FORK_")
"""So begin the variables that no module reads while it is loaded."""
_OF_SHELLS = {"_", "PWD", "OLDPWD", "SHLVL"}
"""What a shell between two processes sets."""
_KERNEL = frozenset((
    "Umask", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed",
    "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
))  # fmt: skip
"""The lines of /proc/PID/status that a child inherits."""
#: Whose limit is a mark: every started process gets its own.
_LIMITS = sorted(
    name for name in dir(resource) if name.startswith("RLIMIT_") and name not in {"RLIMIT_OFILE", "RLIMIT_LOCKS"}
)


def lasting(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that count for whoever loads modules: none of Torch's own, nor their secrets."""
    return {name: value for name, value in environment.items() if _counts(name)}


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """What this process has, and would be the same in a child of it with this environment; OSError without /proc."""
    kernel = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "python": f"{sys.executable} {sys.version}",
        "program": str(Path(__file__).parent),
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "nice": str(os.nice(0)),
        "oom": Path("/proc/self/oom_score_adj").read_text(),
        **{f"namespace {place.name}": str(place.readlink()) for place in Path("/proc/self/ns").iterdir()},
        **{name: str(resource.getrlimit(getattr(resource, name))) for name in _LIMITS},
        **{name: value.strip() for name, _, value in kernel if name in _KERNEL},
        **{f"${name}": value for name, value in lasting(environment).items()},
    }


def _counts(name: str) -> bool:
    return not name.startswith(READ_LATE) and name not in _OF_SHELLS


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The names of what is not the same in both, without the values, which may be secrets; empty if nothing is."""
    return ", ".join(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))
