"""What the fake agent read and did, line by line, for the test to read."""

from __future__ import annotations

import json
import os
import time
from typing import Any


class Record:
    """Appends one JSON line per event, at once; ``at`` is the machine's monotonic clock."""

    def __init__(self, path: str | None) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644) if path else None

    def add(self, kind: str, **facts: Any) -> None:
        """Something of this kind has happened."""
        if self._file is not None:
            line = json.dumps({"at": time.monotonic(), "kind": kind, **facts})
            os.write(self._file, line.encode() + b"\n")

    def read(self, data: bytes) -> None:
        """These bytes came; one character stands for one byte."""
        self.add("bytes", data=data.decode("latin-1"))
