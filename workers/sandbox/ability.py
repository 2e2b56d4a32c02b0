"""Whether bubblewrap can build a box here: it is tried, once for each process."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

_SECONDS = 10.0
_TRIED = ("--unshare-pid", "--unshare-ipc", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")


def bubblewrap() -> str:
    """The program that builds boxes."""
    return shutil.which("bwrap") or "bwrap"


@cache
def why_not() -> str | None:
    """Why no program of this machine's can be boxed; None if it can."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "there is no bubblewrap (bwrap) on PATH; install it (`apt install bubblewrap`)"
    try:
        done = subprocess.run([bwrap, *_TRIED, "true"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{bwrap} does not run: {error}"
    if done.returncode == 0:
        return None
    said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return f"{bwrap} cannot make a box here ({said}); allow unprivileged user namespaces, see docs/security.md"
