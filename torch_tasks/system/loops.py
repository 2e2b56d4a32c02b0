"""Loops that run in threads of their own and survive any error in a round; the pause before another try.

Every thread that Torch starts is one of these.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable

from torch_tasks.errors import TorchError

log = logging.getLogger(__name__)

EXPECTED: tuple[type[Exception], ...] = (TorchError, OSError)
"""Errors whose text is enough for a person: they are logged without a traceback."""
RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 5.0


def backoff(tries: int, first: float, longest: float) -> float:
    """Seconds before the next try: ``first`` after one, then twice as long each time, give or take a fifth."""
    pause = min(first * 2.0 ** min(tries - 1, 64), longest)
    return pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads the tries, keeps no secret


class Loop:
    """Calls one function again and again in a daemon thread, until it is stopped or the process ends.

    Between two rounds it pauses: for as many seconds as the round returned (``math.inf``: until it is woken), else for
    ``pause``. No error ends it. An expected one is logged once until it changes, any other each time and with its
    traceback; the next round comes after a :func:`backoff`.
    """

    def __init__(
        self,
        name: str,
        play_round: Callable[[], float | None],
        *,
        pause: float = 0.0,
        delay: float = 0.0,
        until: Callable[[], bool] = lambda: False,
        expected: tuple[type[Exception], ...] = EXPECTED,
        retry_seconds: float = RETRY_SECONDS,
        longest_retry_seconds: float = LONGEST_RETRY_SECONDS,
    ) -> None:
        """The first round comes after the ``delay``; no round is begun once ``until`` is true."""
        self._name = name
        self._play_round = play_round
        self._pause = pause
        self._delay = delay
        self._until = until
        self._expected = expected
        self._retry = retry_seconds, longest_retry_seconds
        self._failures = 0
        self._trouble = ""
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; may be called once."""
        self._thread.start()

    def wake(self) -> None:
        """Begin the next round now, or right after the current one; a pause after an error is not cut short."""
        self._woken.set()

    def stop(self) -> None:
        """Begin no further round; :meth:`join` waits for the current one."""
        self._stopping.set()
        self._woken.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        """Whether a round that takes long should end early."""
        return self._stopping.is_set()

    def _run(self) -> None:
        self._stopping.wait(self._delay)
        while not self._is_over():
            try:
                pause = self._play_round()
            except Exception as error:
                self._failures += 1
                self._note(error)
                self._stopping.wait(backoff(self._failures, *self._retry))
            else:
                self._note_success()
                pause = self._pause if pause is None else pause
                self._woken.wait(None if pause == math.inf else max(pause, 0.0))
                self._woken.clear()

    def _is_over(self) -> bool:
        try:
            return self._stopping.is_set() or self._until()
        except Exception:
            log.exception("%s: cannot find out whether to end; going on", self._name)
            return False

    def _note(self, error: Exception) -> None:
        if not isinstance(error, self._expected):
            log.error("%s: unexpected error; going on", self._name, exc_info=error)
        elif self._trouble != (trouble := f"{type(error).__name__}: {error}"):
            log.warning("%s: %s; trying again", self._name, error)
            self._trouble = trouble

    def _note_success(self) -> None:
        if self._failures:
            log.info("%s: works again", self._name)
        self._failures, self._trouble = 0, ""


def in_background(name: str, act: Callable[[], object], *, until: Callable[[], bool] = lambda: False) -> Loop:
    """Do something once, in a thread of its own; after an error again, until it succeeds or ``until`` is true."""
    done = threading.Event()

    def play_round() -> None:
        act()
        done.set()

    loop = Loop(name, play_round, until=lambda: done.is_set() or until())
    loop.start()
    return loop
