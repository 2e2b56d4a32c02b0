"""Writes of several threads that wait for the disk at a time: one transaction and one flush for all of them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, TypeVar

Outcome = TypeVar("Outcome")
Step = Callable[[sqlite3.Connection], Any]


class _Waiting:
    """A thread's step, and what comes of it."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.outcome: Future[Any] = Future()
        self.woken = threading.Event()
        """Its step was done, or it is to do all that wait."""


class SharedFlush:
    """Of the threads that wait, one writes for all; those that come meanwhile wait for the next one."""

    def __init__(self, transaction: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        """What a ``transaction`` wrote is on the disk when it ends."""
        self._transaction = transaction
        self.forget_threads()

    def forget_threads(self) -> None:
        """Nobody waits: for a forked child, which has none of its parent's threads."""
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._writer: _Waiting | None = None

    def do(self, step: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """Do this; it is on the disk when this returns.

        If the transaction fails, each whose step was in it gets the error, and none of the steps was done.
        """
        mine = _Waiting(step)
        with self._lock:
            self._waiting.append(mine)
            if self._writer is None:
                self._appoint_writer()
        try:
            mine.woken.wait()
            if self._writer is mine:
                self._write(mine)
        finally:  # also if this thread is interrupted: the others are not to wait for it
            self._leave(mine)
        outcome: Outcome = mine.outcome.result()
        return outcome

    def _appoint_writer(self) -> None:
        self._writer = self._waiting[0] if self._waiting else None
        if self._writer:
            self._writer.woken.set()

    def _leave(self, mine: _Waiting) -> None:
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if self._writer is mine:
                self._appoint_writer()

    def _take(self) -> list[_Waiting]:
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def _write(self, mine: _Waiting) -> None:
        taken: list[_Waiting] = []
        try:
            with self._transaction() as file:
                taken = self._take()
                outcomes = [one.step(file) for one in taken]
        except Exception as error:
            for one in taken or self._take():
                one.outcome.set_exception(error)
                one.woken.set()
            return
        except BaseException:
            with self._lock:
                self._waiting[:0] = [one for one in taken if one is not mine]
            raise
        for one, outcome in zip(taken, outcomes, strict=True):
            one.outcome.set_result(outcome)
            one.woken.set()
