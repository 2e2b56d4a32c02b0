"""The log of this process: in which form it is written, and that a full file is put aside for a new one.

Each process writes into a file of its own. It goes on in the new file where it stopped in the old one, so that no
line is lost or written twice.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from torch_tasks.settings import Settings
from torch_tasks.system.files import exclusive
from torch_tasks.system.log_files_aside import numbered, put_aside
from torch_tasks.system.log_records import log_as
from torch_tasks.system.terminal import make_log_visible

log = logging.getLogger(__name__)

ENDING = ".log"
FOR_PEOPLE = "[%(asctime)s: %(levelname)s] %(message)s"
"""How a process that Celery does not start logs for people; Celery's have the same beginning."""
_OUTPUTS = (1, 2)


def begin_log(logger: logging.Logger, settings: Settings, process: str | None = None) -> None:
    """Have this process log as the settings want it, and under its name unless it has said that.

    The logger has its handlers already.
    """
    log_as(node=settings.node, **({"process": process} if process else {}))
    make_log_visible(logger, settings.log_format)
    own = LogFile.of_output(settings)
    if own and not any(isinstance(handler, LogTurner) for handler in logger.handlers):
        logger.addHandler(LogTurner(own))


def begin_log_early(settings: Settings) -> None:
    """Have this process log so already before Celery sets its own handlers up, which take the place of this one."""
    root = logging.getLogger()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FOR_PEOPLE))
    root.addHandler(handler)
    begin_log(root, settings)


class LogFile:
    """A log that is put aside when it is full: ``node.log`` becomes ``node.log.1``, that one ``node.log.2``, …"""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.limit = settings.log_limit_bytes
        self._kept = settings.log_files_kept

    @classmethod
    def of_output(cls, settings: Settings) -> LogFile | None:
        """The one that this process's output goes to; None if it goes elsewhere: to a terminal, or to systemd."""
        with suppress(OSError):
            output = os.fstat(_OUTPUTS[-1])
            for path in settings.state.logs.glob(f"*{ENDING}"):
                if os.path.samestat(path.stat(), output):
                    return cls(path, settings)
        return None

    def put_aside_if_full(self) -> None:
        """Several processes may ask for it at once: one of them does it."""
        if not self._is_full():
            return
        with exclusive(self.path.with_name(f".{self.path.name}.lock")):
            if self._is_full():
                self._put_aside()

    def _is_full(self) -> bool:
        with suppress(FileNotFoundError):
            return self.path.stat().st_size >= self.limit
        return False

    def _put_aside(self) -> None:
        older = dict(put_aside(self.path))
        for number in sorted(older, reverse=True):
            if number >= self._kept:
                older[number].unlink(missing_ok=True)
            else:
                older[number].rename(numbered(self.path, number + 1))
        if self._kept:
            self.path.rename(numbered(self.path, 1))
        else:
            self.path.unlink()


class LogTurner(logging.Handler):
    """After each record, sees whether the file is full that this process's output goes to."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self._file = file
        self._trouble = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Never an error of whoever logs: a file that cannot be put aside grows, and says so once."""
        try:
            if os.fstat(_OUTPUTS[-1]).st_size >= self._file.limit:
                self._file.put_aside_if_full()
                self._go_on()
        except Exception as error:
            if self._trouble != (trouble := str(error)):
                self._trouble = trouble
                log.warning("%s is full and cannot be put aside: %s", self._file.path, error)

    def _go_on(self) -> None:
        """Have what goes to the old file go to the one that has its name now."""
        old = os.fstat(_OUTPUTS[-1])
        new = os.open(self._file.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            for output in _OUTPUTS:
                if os.path.samestat(os.fstat(output), old):
                    os.dup2(new, output)
        finally:
            os.close(new)
