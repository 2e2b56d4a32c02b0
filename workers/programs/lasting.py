"""What choices changed in a program for later than their task, and how that is taken back.

A mode is taken back by its key, as the screen shows; anything else by a new program, and by putting back the files into
which the old one wrote what it shall allow.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question
from torch_tasks.system.files import write_private
from torch_tasks.workers.programs.config import KindConfig, ModeConfig
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook

log = logging.getLogger(__name__)

Look = Callable[[], ScreenReading | None]
"""The pane as it is now; None if it is gone."""

#: How long a program may take to write its rules, and to show a mode.
_WRITE_SECONDS, _SHOW_SECONDS = 1.0, 1.0
#: How many modes a program has at most.
_MOST_MODES = 8


class LastingChanges:
    """The changes of one agent's program. They are noted in its folder, for the worker that comes after this one."""

    def __init__(
        self, folder: Path, config: KindConfig, workdir: Callable[[], Path], outside: Callable[[Path], Path]
    ) -> None:
        """``outside`` says where a path of the program's lies for this process."""
        self._asked, self._taken, self._mode = (folder / f"lasting.{name}" for name in ("asked", "taken", "mode"))
        self._config = config
        self._workdir = workdir
        self._outside = outside

    def note(self, pane: AgentPane, question: Question | None) -> None:
        """Note whether a lasting choice can be taken now: a person may take it in the pane."""
        can_be_taken = question is not None and bool(question.lasting)
        look = pane.look() if can_be_taken is not self._asked.exists() else None
        if look and can_be_taken:
            write_private(self._asked, json.dumps([look.used_at, self._written()]))
        elif look:
            self._close(look)

    def _close(self, look: PaneLook) -> None:
        """It can be taken no more; a person who pressed keys in the pane meanwhile may have taken it."""
        if self._asked.exists() and json.loads(self._asked.read_text())[0] != look.used_at:
            self.take()
        self._asked.unlink(missing_ok=True)

    def restore(self, pane: AgentPane, look: Look) -> bool:
        """Take back what can be taken back in the free program; false if only a new one is without it."""
        if now := pane.look():
            self._close(now)
        if self._taken.exists():
            return False
        return self._config.mode is None or self._restore_mode(pane, look, self._config.mode)

    def take(self) -> None:
        """A lasting choice was taken."""
        before = json.loads(self._asked.read_text())[1] if self._asked.exists() else {}
        self._asked.unlink(missing_ok=True)
        if not self._taken.exists():
            deadline = time.monotonic() + _WRITE_SECONDS
            while (after := _contents(before)) == before and time.monotonic() < deadline:
                time.sleep(0.05)
            write_private(self._taken, json.dumps([before, after]))

    def undo(self) -> None:
        """Put the program's files back, before a new program reads them; what others wrote since stays."""
        if self._taken.exists():
            before, after = json.loads(self._taken.read_text())
            for name, content in _contents(before).items():
                if before[name] != after[name]:
                    _put_back(Path(name), before[name], is_own=content == after[name])
        self.forget()

    def forget(self) -> None:
        """Whatever was chosen until now is meant to last."""
        for file in (self._asked, self._taken, self._mode):
            file.unlink(missing_ok=True)

    def _written(self) -> dict[str, str | None]:
        """What stands in the files into which lasting choices write."""
        names = (name.replace("{workdir}", str(self._workdir())) for name in self._config.answers.written)
        return _contents(str(self._outside(Path(name).expanduser())) for name in names)

    # ── the mode ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _restore_mode(self, pane: AgentPane, look: Look, config: ModeConfig) -> bool:
        """Have the free program in the mode in which it was first seen free; false if it cannot be had."""
        if not self._mode.exists():
            if (mode := _mode_shown(look, config)) is not None:
                self._mode.write_text(mode)
            return True
        wanted = self._mode.read_text()
        for _ in range(_MOST_MODES):
            mode = _mode_shown(look, config, wanted)
            if mode is None or mode in ("", wanted):  # a person types, or no mode is shown
                return True
            log.info("the program is in the mode %s, not %s: pressing %s", mode, wanted or "of its start", config.keys)
            pane.press(*config.keys)
            _await_other(look, config, mode)
        return False


def _contents(names: Iterable[str]) -> dict[str, str | None]:
    """What stands in these files; None where there is none."""
    return {name: Path(name).read_text() if Path(name).is_file() else None for name in names}


def _put_back(file: Path, content: str | None, *, is_own: bool) -> None:
    """Put a file's content back, if what stands there now is the program's own."""
    if not is_own:
        log.warning("%s was changed since a lasting choice was taken: look what it allows", file)
    elif content is None:
        file.unlink(missing_ok=True)
    else:
        file.write_text(content)


def _mode_shown(look: Look, config: ModeConfig, wanted: str | None = None) -> str | None:
    """The mode, empty if none is shown; the wanted one is waited for a moment. None if the program is not free."""
    deadline = time.monotonic() + _SHOW_SECONDS
    while True:
        view = look()
        if view is None or view.best.state is not AgentState.READY or not view.composer.is_empty or view.screen.in_use:
            return None
        found = config.shown.search(view.screen.text)
        mode = (found["mode"] or "").strip() if found else ""
        if mode == wanted or (mode and wanted is None) or time.monotonic() > deadline:
            return mode
        time.sleep(0.05)


def _await_other(look: Look, config: ModeConfig, mode: str) -> None:
    deadline = time.monotonic() + _SHOW_SECONDS
    while time.monotonic() < deadline:
        view = look()
        found = config.shown.search(view.screen.text) if view else None
        if found is None or (found["mode"] or "").strip() != mode:
            return
        time.sleep(0.05)
