"""The screens that a program showed while it was tried, in the form in which the kinds' tests keep them."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_tasks.errors import AgentUnavailable
from torch_tasks.model.agent import AgentState
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.kind import AgentKind
from torch_tasks.workers.tmux.pane import AgentPane

_TRIES = 5
_ASKING = frozenset({AgentState.WAITING, AgentState.LOGIN})


@dataclass(frozen=True)
class SavedScreen:
    """One screen with its escape sequences, and what the kind's rules read in it."""

    drawn: str
    read: dict[str, Any]

    def text(self, kind: str, release: str) -> str:
        """The file of a kind's test: the release, what the rules must read, and the screen."""
        return f"{kind} {release}\n{json.dumps(self.read, ensure_ascii=False)}\n{self.drawn}\n"


def see(kind: AgentKind, pane: AgentPane) -> SavedScreen | None:
    """The screen as it is now; none if there is none, or if it never stands still."""
    with contextlib.suppress(AgentUnavailable):
        for _ in range(_TRIES):
            before = pane.drawn()
            view = kind.read_screen(pane) if isinstance(kind, CodingAgent) else None
            if view is None:
                return None
            if pane.drawn() != before:
                continue
            question = view.by_screen.question
            read = {
                "state": view.by_screen.state,
                "composer": view.composer.text if view.composer.seen else None,
                "question": question.text if question else None,
                "choices": question.choices if question else (),
                "title": view.screen.title,
                "cursor": view.screen.cursor,
            }
            return SavedScreen("\n".join(before).rstrip("\n"), read)
    return None


class Screens:
    """Those of one program, each under a name."""

    def __init__(self) -> None:
        self.saved: dict[str, SavedScreen] = {}
        self._last: SavedScreen | None = None

    def save(self, name: str, kind: AgentKind, pane: AgentPane) -> None:
        """Keep the screen that stands in the pane now."""
        if seen := see(kind, pane):
            self.saved[name] = seen

    def watch_start(self, kind: AgentKind, pane: AgentPane) -> None:
        """Keep what stands before the program is ready: what asks something, and what is the same in two looks."""
        seen = see(kind, pane)
        if seen and seen.drawn.strip() and seen not in self.saved.values():
            state = seen.read["state"]
            if state in _ASKING or (seen == self._last and state is not AgentState.READY):
                self.saved[f"start-{sum(name.startswith('start-') for name in self.saved) + 1}"] = seen
        self._last = seen

    def write(self, folder: Path, kind: str, release: str) -> list[Path]:
        """Write them all; returns their files."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name, screen in self.saved.items():
            files.append(folder / f"{name}.txt")
            files[-1].write_text(screen.text(kind, release))
        return files
