"""The tasks that a page shows: which of them somebody may see differs from one person to the next."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from torch_tasks.operations.tasks import MOST_AT_ONCE
from torch_tasks.server.console import page
from torch_tasks.server.console.page import Visit
from torch_tasks.server.console.shared import SharedReplies


def test_each_person_asks_for_themselves_and_for_no_more_than_one_request_may_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def perform(_: Any, request: Any) -> list[Any]:
        asked.append(len(request.task_ids))
        return [SimpleNamespace(spec=SimpleNamespace(id=one)) for one in request.task_ids]

    monkeypatch.setattr(page, "perform_here", perform)
    shared = SharedReplies()
    ids = [f"task-{number}" for number in range(MOST_AT_ONCE + 1)]
    for _ in ("one person", "another"):
        assert sorted(Visit(shared).tasks([*ids, None, "", "task-0"])) == sorted(ids)
    assert asked == [MOST_AT_ONCE, 1] * 2
