"""Keys pressed one after the other, as a person does who looks at the screen meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch_tasks.workers.tmux.pane import AgentPane

#: How long a program may take to show what a key did, and how long it is then still when it has.
_ECHO_SECONDS, _STILL_SECONDS = 1.0, 0.2


def type_keys(pane: AgentPane, keys: Sequence[str], number: int = 0, text: str = "") -> None:
    """Press the keys, and wait after each until the program has shown what it did, or has shown nothing for a while.

    ``{n}`` in a key is the number; the key ``{text}`` pastes the text.
    """
    for key in keys:
        shown = pane.drawn()
        if key == "{text}":
            pane.paste(text)
        else:
            pane.press(key.replace("{n}", str(number)))
        _await_echo(pane, shown)


def _await_echo(pane: AgentPane, before: list[str]) -> None:
    """Wait for the screen to change, and to be still again."""
    seen, since = before, time.monotonic()
    deadline = since + _ECHO_SECONDS
    while time.monotonic() < deadline and (seen == before or time.monotonic() - since < _STILL_SECONDS):
        time.sleep(0.02)
        if (now := pane.drawn()) != seen:
            seen, since = now, time.monotonic()
