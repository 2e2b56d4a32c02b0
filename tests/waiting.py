"""How tests wait: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def until(
    condition: Callable[[], Value | None], what: str, seconds: float = 30.0, screen: Callable[[], str] | None = None
) -> Value:
    """The first true value of the condition, or a failed test, which shows the screen."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}{_shown(screen)}"
        time.sleep(0.01)
    return value


def _shown(screen: Callable[[], str] | None) -> str:
    return f"; the pane shows:\n{screen()}" if screen else ""
