"""Has a program whose release has changed tried before agents are started with it; those that run, run on."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from torch_tasks.errors import InvalidSettings
from torch_tasks.machine import commands
from torch_tasks.machine.certificates import Certificates
from torch_tasks.model.certificate import ReleaseState
from torch_tasks.settings import Settings
from torch_tasks.system.files import make_folder
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.installed import InstalledRelease, installed_release

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 5.0
"""How long what was found of a program's file holds: it may be certified by hand, or start another file."""
_GRACE = 10.0


@dataclass
class _Kind:
    """What is known of one kind's program."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    found: InstalledRelease = field(default_factory=InstalledRelease)
    file: tuple[str, int] = ("", 0)
    """The program's file and when it was written: another one is asked for its release."""
    looked_at: float = float("-inf")
    tried: set[str] = field(default_factory=set)
    """The releases that were tried by this process."""
    trial: subprocess.Popen[bytes] | None = None


class ReleaseWatch:
    """What ``TORCH_CERTIFY`` asks for, on this machine; supervisors ask it before each start of an agent worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._certificates = Certificates(settings.state)
        self._kinds: dict[str, _Kind] = {}
        self._changing = threading.Lock()

    def why_not_start(self, kind: str) -> str:
        """Why no agent of this kind is started now; empty if nothing stands against it."""
        if self._settings.certify == "off":
            return ""
        with self._changing:
            known = self._kinds.setdefault(kind, _Kind())
        with known.lock:
            return self._decide(kind, known)

    def _decide(self, kind: str, known: _Kind) -> str:
        if known.trial:
            if known.trial.poll() is None:
                return self._words(kind, known, "is being certified, which takes about two minutes")
            known.trial, known.looked_at = None, float("-inf")
        if not self._look(kind, known):
            return ""
        match known.found.release_state:
            case ReleaseState.BROKEN if self._settings.certify == "auto":
                remedy = f"'torch-tasks certify {kind}' tries it again, TORCH_CERTIFY=warn starts it all the same"
                return self._words(kind, known, f"is broken: {known.found.why}; {remedy}")
            case ReleaseState.UNCERTIFIED if self._is_to_be_tried(kind, known):
                self._begin_trial(kind, known)
                return self._words(kind, known, "is being certified, which takes about two minutes")
        return ""

    def _is_to_be_tried(self, kind: str, known: _Kind) -> bool:
        """A person has tried an earlier release here, and this one neither was tried nor could not be."""
        is_new = known.found.release is not None and known.found.release not in known.tried
        return self._settings.certify == "auto" and is_new and kind in self._certificates.kinds()

    def _look(self, kind: str, known: _Kind) -> bool:
        """Ask the program for its release if that may have changed; false if there is none to ask."""
        try:
            path = kind_config(kind).path
        except InvalidSettings:  # the agent's own worker says so
            return False
        if path is None:
            return False
        file = (os.path.realpath(path), Path(path).stat().st_mtime_ns)
        if known.file == file and time.monotonic() - known.looked_at < _AGAIN_SECONDS:
            return True
        known.looked_at = time.monotonic()
        before = known.found
        if known.file != file or before.release_state is not ReleaseState.CERTIFIED:
            known.found, known.file = installed_release(kind, self._certificates), file
        if known.found != before and known.found.release_state in (ReleaseState.UNCERTIFIED, ReleaseState.BROKEN):
            log.warning("%s", self._words(kind, known, f"is {known.found.release_state}: {known.found.why}"))
        return True

    def _begin_trial(self, kind: str, known: _Kind) -> None:
        known.tried.add(str(known.found.release))
        make_folder(self._settings.state.logs)
        with (self._settings.state.logs / f"certify-{kind}.log").open("wb") as output:
            known.trial = subprocess.Popen(
                commands.runnable((*commands.CERTIFY, kind)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        log.warning("%s", self._words(kind, known, "is new here and is certified before agents start with it"))

    def _words(self, kind: str, known: _Kind, what: str) -> str:
        return f"release {known.found.release or 'unknown'} of {kind} {what}"

    def stop(self) -> None:
        """End what is being tried."""
        for known in self._kinds.values():
            with known.lock:
                if known.trial and known.trial.poll() is None:
                    known.trial.terminate()
                    try:
                        known.trial.wait(_GRACE)
                    except subprocess.TimeoutExpired:
                        known.trial.kill()
