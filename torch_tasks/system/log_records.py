"""What a log line says beside its text: of which process it is, and about which task, in which trace, for whom."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from torch_tasks.redaction import redacted
from torch_tasks.visible_text import escaped

_process: dict[str, str | int] = {}
_about: ContextVar[dict[str, str]] = ContextVar("_about", default={})  # noqa: B039 - it is never changed in place


def log_as(**fields: str | int) -> None:
    """Whatever this process logs from now on says this of the process."""
    _process.update(fields)


@contextmanager
def logging_about(**fields: str) -> Iterator[None]:
    """Whatever is logged meanwhile, in this thread, says what it is about."""
    before = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(before)


class JsonLine(logging.Formatter):
    """One JSON object for each record, on one line: the same fields from each process, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": redacted(record.getMessage()),
            "logger": record.name,
            "pid": record.process,
            **_process,
            **_about.get(),
        }
        if record.exc_info:
            fields["error"] = redacted(self.formatException(record.exc_info))
        return escaped(json.dumps(fields, ensure_ascii=False, default=str))


def without_result(record: logging.LogRecord) -> bool:
    """A filter for what Celery logs of tasks: that one has succeeded, and not its whole result."""
    if isinstance(record.args, dict) and "return_value" in record.args:
        record.args = {**record.args, "return_value": "its result is in its record"}
    return True
