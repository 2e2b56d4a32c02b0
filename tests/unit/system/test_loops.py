"""Loops in threads, and the pause before a next try."""

from __future__ import annotations

import ast
import logging
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from torch_tasks.errors import BrokerUnreachable
from torch_tasks.system.loops import Loop, backoff, in_background

DEADLINE = 10.0


class Rounds:
    """Plays rounds as told, and notes that they came."""

    def __init__(self, *results: float | Exception | None) -> None:
        self.count = 0
        self.all_played = threading.Event()
        self._results = results

    def __call__(self) -> float | None:
        self.count += 1
        if self.count > len(self._results):
            self.all_played.set()
            return math.inf
        result = self._results[self.count - 1]
        if isinstance(result, Exception):
            raise result
        return result


def run(play_round: Rounds, **options: float | Callable[[], bool]) -> Loop:
    loop = Loop("a test's loop", play_round, retry_seconds=0.001, **options)  # type: ignore[arg-type]
    loop.start()
    return loop


@pytest.mark.parametrize("error", [BrokerUnreachable("away"), OSError("full"), ValueError("a bug"), KeyError("x")])
def test_a_loop_survives_any_error_of_a_round(error: Exception) -> None:
    rounds = Rounds(0.0, error, error, 0.0)
    loop = run(rounds)
    assert rounds.all_played.wait(DEADLINE)
    loop.stop()
    loop.join(DEADLINE)
    assert rounds.count == 5


def test_an_expected_error_is_said_once_and_any_other_each_time_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = BrokerUnreachable("no broker answers")
    rounds = Rounds(away, away, ValueError("a bug"), ValueError("a bug"), 0.0)
    with caplog.at_level(logging.INFO):
        run(rounds)
        assert rounds.all_played.wait(DEADLINE)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info for record in warnings] == [None]
    assert "no broker answers" in warnings[0].getMessage()
    assert [record.exc_info[0] for record in errors if record.exc_info] == [ValueError, ValueError]
    assert [record.getMessage() for record in caplog.records][-1] == "a test's loop: works again"


def test_a_loop_that_waits_for_ever_goes_on_when_it_is_woken() -> None:
    rounds = Rounds(math.inf, math.inf)
    loop = run(rounds)
    while not rounds.all_played.wait(0.001):
        loop.wake()
    assert rounds.count >= 3


def test_a_loop_ends_when_it_is_stopped_in_its_pause() -> None:
    rounds = Rounds(3600.0)
    loop = run(rounds)
    loop.stop()
    loop.join(DEADLINE)
    assert loop.is_stopping
    assert rounds.count <= 1


def test_a_loop_ends_when_its_condition_is_met() -> None:
    rounds = Rounds(0.0, 0.0, 0.0, 0.0)
    run(rounds, until=lambda: rounds.count == 3).join(DEADLINE)
    assert rounds.count == 3


def test_a_loop_ends_when_its_own_round_stops_it() -> None:
    counted = []

    def play() -> None:
        counted.append(1)
        loop.stop()

    loop = Loop("stops itself", play)
    loop.start()
    loop.join(DEADLINE)
    assert counted == [1]


def test_the_pause_of_a_round_that_returns_nothing_is_the_loops_own() -> None:
    rounds = Rounds(None, None)
    run(rounds, pause=0.001)
    assert rounds.all_played.wait(DEADLINE)


@pytest.mark.parametrize(
    ("tries", "least", "most"), [(1, 1.6, 2.4), (2, 3.2, 4.8), (3, 6.4, 9.6), (6, 48, 72), (9999, 48, 72)]
)
def test_each_pause_is_twice_as_long_up_to_a_limit(tries: int, least: float, most: float) -> None:
    pauses = {backoff(tries, first=2.0, longest=60.0) for _ in range(50)}
    assert all(least <= pause <= most for pause in pauses)
    assert len(pauses) > 1


# ── every thread is one of these ─────────────────────────────────────────────────────────────────────────────────

REPOSITORY = Path(__file__).parents[3]
HOME = Path("torch_tasks/system/loops.py")
WITH_A_RULE_OF_THEIR_OWN = {
    # Its `run` survives any error: see tests/unit/host/test_supervisor.py.
    Path("workers/node/supervisor.py"),
    # However it ends, whoever waits for its answer gets an error, and the next use opens another connection.
    Path("workers/programs/codex/server.py"),
}


def starts_of_threads() -> Iterator[tuple[Path, str]]:
    """Each place that starts a thread by itself: not a Loop, and no executor whose results are read."""
    for package in ("torch_tasks", "workers", "beat"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            tree = ast.parse(file.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and _starts_a_thread(node.func):
                    yield file.relative_to(REPOSITORY), ast.unparse(node)
                elif isinstance(node, ast.ClassDef) and any(map(_starts_a_thread, node.bases)):
                    yield file.relative_to(REPOSITORY), node.name


def _starts_a_thread(node: ast.expr) -> bool:
    name = ast.unparse(node).rpartition(".")[2]
    return name in {"Thread", "Timer", "start_new_thread", "start_joinable_thread"}


def test_no_thread_is_started_but_as_a_loop() -> None:
    assert {file for file, _ in starts_of_threads()} == {HOME, *WITH_A_RULE_OF_THEIR_OWN}


def test_what_is_done_in_the_background_is_tried_again_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    tries, done = iter((OSError("busy"), ValueError("unexpected"), None)), threading.Event()

    def act() -> None:
        if error := next(tries):
            raise error
        done.set()

    loop = in_background("a test's act", act)
    assert done.wait(DEADLINE)
    loop.join(DEADLINE)
    assert not loop.is_alive
    assert "a test's act: unexpected error; going on" in caplog.text


def test_what_is_done_in_the_background_ends_when_nobody_wants_it_any_more() -> None:
    tried, unwanted = threading.Event(), threading.Event()

    def act() -> None:
        tried.set()
        raise OSError("never")

    loop = in_background("a test's act", act, until=unwanted.is_set)
    assert tried.wait(DEADLINE)
    unwanted.set()
    loop.join(DEADLINE)
    assert not loop.is_alive
