"""Who types into an agent's pane: Torch, or a person who has taken it over."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch_tasks.errors import NotTakenOver, PaneTaken


class Keyboard:
    """One pane's keyboard. It is Torch's, or one person's, for as long as that person gives signs of being there."""

    def __init__(self, away_seconds: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        """Who has given no sign for ``away_seconds`` has left."""
        self._away_seconds = away_seconds
        self._clock = clock
        self._changing = threading.RLock()
        self._person, self._until = "", 0.0

    @property
    def person(self) -> str:
        """Who has it; empty if it is Torch's."""
        return self._person if self._clock() < self._until else ""

    def take(self, who: str) -> None:
        """Have it from now on; :class:`PaneTaken` if another person has."""
        with self._changing:
            self._require_no_other(who)
            self._person, self._until = who, self._clock() + self._away_seconds

    def stay(self, who: str) -> None:
        """Have it for another while, if it is this person's."""
        with self._changing:
            if self.person == who:
                self._until = self._clock() + self._away_seconds

    def give_back(self, who: str) -> None:
        """Make it Torch's again; :class:`PaneTaken` if another person has it."""
        with self._changing:
            self._require_no_other(who)
            self._person, self._until = "", 0.0

    @contextmanager
    def typing(self, who: str) -> Iterator[None]:
        """While this person types; :class:`NotTakenOver` if the keyboard is not theirs."""
        with self._changing:
            if self.person != who:
                holder = f"{self.person} has" if self.person else "Torch has it back"
                raise NotTakenOver(f"you have not taken this terminal over, or no longer: {holder}; nothing was typed")
            self.stay(who)
            yield

    @contextmanager
    def unless_taken(self) -> Iterator[bool]:
        """Whether Torch may type; while it does, nobody takes over."""
        with self._changing:
            yield not self.person

    def _require_no_other(self, who: str) -> None:
        if self.person not in ("", who):
            raise PaneTaken(f"{self.person} has taken this terminal over; it is free once they give it back or leave")
