"""The program of a kind as it is installed on this machine."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

#: How long a program may take to print its release.
_VERSION_SECONDS = 20


def release_of(path: str, environment: Mapping[str, str]) -> str | None:
    """The release that the program prints, if it prints one in time."""
    argv, variables = [path, "--version"], {**os.environ, **environment}
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=variables, timeout=_VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    release = re.search(rb"\d+(\.\d+)+\S*", done.stdout)
    return release[0].decode(errors="replace") if release else None
