"""A program's settings file of the user's: read, and overlaid with what an agent needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_tasks.errors import AgentUnavailable

#: A string, kept; or a comment.
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in the file, which may hold comments; none if there is no file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    plain = _TRAILING_COMMA.sub(r"\1", _COMMENT.sub(r"\1", text))
    try:
        settings = json.loads(plain or "{}")
    except ValueError as error:
        raise AgentUnavailable(f"{path} is no valid JSON ({error}); put it right, or the agent cannot start") from None
    return settings if isinstance(settings, dict) else {}


def overlaid(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with others over them: tables are merged, everything else is replaced."""
    merged = dict(settings)
    for name, value in over.items():
        before = merged.get(name)
        merged[name] = overlaid(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged
