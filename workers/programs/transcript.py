"""Where a program keeps its session, as each of its hooks is told."""

from __future__ import annotations

import json
from pathlib import Path


def transcript_of(events: Path) -> Path | None:
    """The transcript that the newest event in this folder names."""
    for file in sorted(events.glob("*.json"), reverse=True):
        try:
            return Path(json.loads(file.read_bytes())["input"]["transcript_path"])
        except (OSError, ValueError, LookupError, TypeError):  # not one of the hooks', or gone meanwhile
            continue
    return None
