"""Keys pressed one after the other, as a person does who looks at the screen meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence

from workers.tmux.pane import AgentPane

#: How long a program may take to show what a key did.
_ECHO_SECONDS = 1.0


def type_keys(pane: AgentPane, keys: Sequence[str], number: int = 0, text: str = "") -> None:
    """Press the keys, each when the program has shown what the one before it did, or has shown nothing for a while.

    ``{n}`` in a key is the number; the key ``{text}`` pastes the text.
    """
    shown: list[str] = []
    for place, key in enumerate(keys):
        deadline = time.monotonic() + _ECHO_SECONDS
        while place and pane.drawn() == shown and time.monotonic() < deadline:
            time.sleep(0.02)
        shown = pane.drawn()
        if key == "{text}":
            pane.paste(text)
        else:
            pane.press(key.replace("{n}", str(number)))
