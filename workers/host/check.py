"""A task's check: the command that decides whether the task was done."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from torch_tasks.model.task import Evidence
from torch_tasks.workers.host.bell import Bell

#: As much of a check's output as is worth keeping as evidence.
_TAIL = 2000


class Check:
    """The check command while it runs. Its end rings the bell."""

    def __init__(self, command: str, *, workdir: str, variables: Mapping[str, str], log: Path, bell: Bell) -> None:
        self._command = command
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=workdir,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=self._wait, args=(bell,), daemon=True).start()

    def _wait(self, bell: Bell) -> None:
        self._process.wait()
        bell.ring()

    @property
    def exit_code(self) -> int | None:
        """How it ended, or nothing while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End it and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def evidence(self) -> Evidence:
        """What it showed."""
        said = self._log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
        detail = f"{self._command}: exit code {self.exit_code}" + (f"\n{said}" if said else "")
        return Evidence(kind="check", detail=detail, passed=self.exit_code == 0)
