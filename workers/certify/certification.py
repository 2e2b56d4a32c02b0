"""Tries one kind's program, promise after promise, and writes down what was found."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from torch_tasks.errors import AgentUnavailable, FakeModelFailed, PromiseBroken, TorchError
from torch_tasks.model.certificate import Outcome, PromiseResult, Recording
from torch_tasks.workers.certify.agent import TriedAgent
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.certify.promises import PROMISES, Promise, not_applicable
from torch_tasks.workers.certify.screens import Screens, see
from torch_tasks.workers.programs.config import kind_config

OnResult = Callable[[PromiseResult], None]
"""Called with each result as soon as it is known."""
_WHY_LINES = 3


class Certification:
    """One program, tried at one home."""

    def __init__(self, kind: str, home: Home, folder: Path, on_result: OnResult) -> None:
        self._agent = TriedAgent(kind, home, folder)
        self._not_applicable = not_applicable(home.way or home.cli, kind_config(kind))
        self._on_result = on_result
        self._why_not_tried = ""
        self._must_start = False
        self.results: list[PromiseResult] = []
        self.recordings: list[Recording] = []

    @property
    def screens(self) -> Screens:
        return self._agent.screens

    def run(self) -> None:
        """Try each promise; one that breaks spoils none of the others, but those that need it."""
        try:
            for promise in PROMISES:
                self.results.append(self._try(promise))
                self._on_result(self.results[-1])
        finally:
            self._agent.close()

    def _try(self, promise: Promise) -> PromiseResult:
        if why := self._not_applicable.get(promise.name):
            return PromiseResult(promise=promise.name, outcome=Outcome.NOT_APPLICABLE, detail=why)
        if self._why_not_tried:
            return PromiseResult(promise=promise.name, outcome=Outcome.NOT_TRIED, detail=self._why_not_tried)
        since = time.monotonic()
        try:
            if self._must_start:
                self._agent.start()
                self._must_start = False
            outcome, detail = Outcome.HELD, promise.check(self._agent)
        except FakeModelFailed:
            raise
        except (TorchError, OSError) as error:
            outcome, detail = Outcome.BROKEN, _first_lines(error)
            self._record(promise.name, detail)
            self._must_start = True
            self._why_not_tried = f"without {promise.name!r} nothing can be tried" if promise.is_needed else ""
        seconds = round(time.monotonic() - since, 1)
        return PromiseResult(promise=promise.name, outcome=outcome, detail=detail, seconds=seconds)

    def _record(self, promise: str, why: str) -> None:
        """Keep the screen on which a promise broke."""
        try:
            seen = see(self._agent.kind, self._agent.pane)
        except AgentUnavailable:
            return
        if seen:
            title, cursor = str(seen.read["title"]), seen.read["cursor"]
            self.recordings.append(Recording(promise=promise, why=why, title=title, cursor=cursor, drawn=seen.drawn))
            self.screens.saved[f"broken-{promise.replace(' ', '-')}"] = seen


def _first_lines(error: Exception) -> str:
    """What the error says, without the screens that it shows."""
    words = str(error) if isinstance(error, PromiseBroken) else f"{type(error).__name__}: {error}"
    return "\n".join(words.splitlines()[:_WHY_LINES])
