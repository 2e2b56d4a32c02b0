"""A result is stored again and again while the broker is away, until the worker stops."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from celery.backends.redis import RedisBackend
from celery.worker import state as worker_state

from torch_tasks.broker.results import Results


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the results that were to be stored; the broker is away the first two times."""
    found: list[str] = []

    def store_result(self: RedisBackend, task_id: str, *args: Any, **kwargs: Any) -> str:
        found.append(task_id)
        if len(found) <= 2:
            raise redis.ConnectionError("refused")
        return "stored"

    monkeypatch.setattr(RedisBackend, "store_result", store_result)
    return found


@pytest.mark.parametrize("unset", [None, False])
def test_a_result_is_stored_when_the_broker_is_back(
    tries: list[str], monkeypatch: pytest.MonkeyPatch, unset: bool | None
) -> None:
    monkeypatch.setattr(worker_state, "should_stop", unset)
    assert Results.__new__(Results).store_result("t1") == "stored"
    assert len(tries) == 3


@pytest.mark.parametrize("order", ["should_stop", "should_terminate"])
@pytest.mark.parametrize("exit_code", [0, 1, True])
def test_a_worker_that_stops_tries_once(
    tries: list[str], monkeypatch: pytest.MonkeyPatch, order: str, exit_code: int
) -> None:
    monkeypatch.setattr(worker_state, order, exit_code)
    with pytest.raises(redis.ConnectionError):
        Results.__new__(Results).store_result("t1")
    assert len(tries) == 1
