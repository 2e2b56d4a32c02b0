"""The program of a kind as it is installed on this machine, and what is known of its release."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch_tasks.machine.certificates import Certificates
from torch_tasks.model.certificate import ReleaseState
from torch_tasks.model.durations import local_time
from torch_tasks.settings import Settings
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.releases import certified_releases, is_certified

#: How long a program may take to print its release.
_VERSION_SECONDS = 20


@dataclass(frozen=True)
class InstalledRelease:
    """The release that would run now."""

    release: str | None = None
    """None if the program is not there, or is not asked: one that Torch does not know may do anything."""
    release_state: ReleaseState | None = None
    """None if there is nothing that a certificate could be about."""
    why: str = ""
    """Who says so, or what did not hold."""


def installed_release(kind: str, certificates: Certificates) -> InstalledRelease:
    """The release of the kind's program, and what is known of it."""
    config = kind_config(kind)
    if config.path is None or not (certified_releases(kind) or config.certify or kind in certificates.kinds()):
        return InstalledRelease()
    file = Path(config.path)
    release = certificates.release_in(file) or release_of(config.path, config.environment)
    if release is None:
        return InstalledRelease(release_state=ReleaseState.UNCERTIFIED, why="it does not tell its release")
    certificates.note_release(file, release)
    return known_release(kind, release, certificates)


def known_release(kind: str, release: str, certificates: Certificates) -> InstalledRelease:
    """What is known of this release: by this machine's certificate, else by Torch's own tests."""
    if own := certificates.get(kind, release):
        broken = f"not kept: {', '.join(result.promise for result in own.broken)}; " if own.broken else ""
        return InstalledRelease(release, own.release_state, f"{broken}tried here {local_time(own.at)}")
    if is_certified(kind, release):
        return InstalledRelease(release, ReleaseState.CERTIFIED, "by Torch's own tests")
    return InstalledRelease(release, ReleaseState.UNCERTIFIED, f"try it: torch-tasks certify {kind}")


def why_held(kind: str, ran: str | None, settings: Settings) -> str:
    """Why the kind's program must not be started now, after the release that ``ran``; empty if it may.

    By ``TORCH_CERTIFY=auto``: what is installed is broken, or is new since another release was tried here.
    """
    if settings.certify != "auto":
        return ""
    certificates = Certificates(settings.state)
    found = installed_release(kind, certificates)
    match found.release_state:
        case ReleaseState.BROKEN:
            return f"release {found.release} of {kind} is broken: {found.why}"
        case ReleaseState.UNCERTIFIED if found.release not in (None, ran) and kind in certificates.kinds():
            return f"release {found.release} of {kind} is new here and is tried before agents start with it"
    return ""


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
