"""The dialogs of a program's start, answered as its TOML says."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from torch_tasks.workers.programs.config import DialogConfig
from torch_tasks.workers.programs.keyboard import type_keys
from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.tmux.pane import AgentPane

log = logging.getLogger(__name__)

#: A dialog that still stands there after so long did not hear the keys.
_AGAIN_SECONDS = 2.0


class Dialogs:
    """One program's; each is answered once, and once more if it stays."""

    def __init__(self, dialogs: Sequence[DialogConfig]) -> None:
        self._dialogs = dialogs
        self._last: tuple[DialogConfig, float] | None = None

    def answer(self, pane: AgentPane, screen: Screen) -> None:
        """Answer the dialog on the screen, if there is one that is known."""
        text = screen.text
        known = next((dialog for dialog in self._dialogs if dialog.pattern.search(text)), None)
        if known is None:
            return
        moment = time.monotonic()
        if self._last and self._last[0] is known and moment - self._last[1] < _AGAIN_SECONDS:
            return
        self._last = (known, moment)
        log.info("answering the dialog %s with %s", known.note or known.pattern.pattern, " ".join(known.keys))
        type_keys(pane, known.keys)
