"""What this process prints and logs: visible text, wherever it comes from.

Everything printed goes through :func:`visible_output`; only Torch's own colours and movements go around it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from torch_tasks.redaction import redacted
from torch_tasks.system.log_records import JsonLine
from torch_tasks.visible_text import hanging, visible

if TYPE_CHECKING:
    from torch_tasks.telemetry_settings import LogForm


class VisibleStream:
    """A stream that makes visible whatever is written to it."""

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath
        """The stream itself, for what Torch itself makes to steer the terminal."""

    def write(self, text: str) -> int:
        self.beneath.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.beneath, name)


@contextmanager
def visible_output() -> Iterator[None]:
    """Let this process print nothing but visible text meanwhile, on standard output and on standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, VisibleStream(beneath(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def beneath(stream: TextIO) -> TextIO:
    """The stream itself, which passes on what steers a terminal."""
    return stream.beneath if isinstance(stream, VisibleStream) else stream


class LogLine(logging.Formatter):
    """Formats as another formatter does, as visible text without secrets.

    Only a record's first line begins at the margin.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return hanging(redacted(self._inner.format(record)))


def make_log_visible(logger: logging.Logger, form: LogForm = "people") -> None:
    """Give each handler of the logger lines that no value in them can forge: for people, or for programs."""
    for handler in logger.handlers:
        if not isinstance(handler.formatter, LogLine | JsonLine):
            plain = LogLine(handler.formatter or logging.Formatter())
            handler.setFormatter(JsonLine() if form == "json" else plain)
