"""The board: which tasks are found, and page after page of them."""

from __future__ import annotations

import pytest

from torch_tasks.model.board import BoardEntry, BoardFilter, BoardPlace
from torch_tasks.model.task import TaskState
from torch_tasks.tasks.board import page_of


def entry(number: int, state: str = "queued", title: str = "", role: str | None = None) -> BoardEntry:
    return BoardEntry(
        BoardPlace(number // 2, f"t{number}"),
        TaskState(state),
        title,
        role,
        f"dev-{number % 3}",
        "trace",
        title.casefold(),
    )


ALL = tuple(sorted((entry(n, "failed" if n % 4 == 0 else "queued", f"Task {n}") for n in range(1000)), reverse=True))


@pytest.mark.parametrize("states", [(), (TaskState.FAILED,), (TaskState.FAILED, TaskState.QUEUED)])
@pytest.mark.parametrize("limit", [1, 7, 200])
def test_page_after_page_shows_each_task_once(states: tuple[TaskState, ...], limit: int) -> None:
    seen, before, more = [], None, True
    while more:
        page, more = page_of(ALL, states, before, limit)
        assert len(page) == limit or not more
        seen += page
        before = BoardPlace.read(str(page[-1].place))
    assert seen == [one for one in ALL if not states or one.state in states]


def test_new_tasks_do_not_shift_the_next_page() -> None:
    page, _ = page_of(ALL, (), None, 10)
    newer = (entry(5000), *ALL)
    assert page_of(newer, (), page[-1].place, 10) == page_of(ALL, (), page[-1].place, 10)


def test_a_page_after_the_last_task_is_empty() -> None:
    assert page_of(ALL, (), ALL[-1].place, 10) == ([], False)
    assert page_of((), (), None, 10) == ([], False)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (BoardFilter(), ["b-1", "a-2"]),
        (BoardFilter(words="BUG mend"), ["b-1"]),
        (BoardFilter(words="a-2"), ["a-2"]),
        (BoardFilter(words="-2"), []),
        (BoardFilter(role="qa"), ["a-2"]),
        (BoardFilter(agent="dev-1", words="bug"), ["b-1"]),
        (BoardFilter(agent="dev-1", role="qa"), []),
        (BoardFilter(trace_id="t1"), ["b-1"]),
    ],
)
def test_tasks_are_found_by_what_is_known_of_them(wanted: BoardFilter, found: list[str]) -> None:
    entries = [
        BoardEntry(BoardPlace(2, "b-1"), TaskState.QUEUED, "Mend the bug", "developer", "dev-1", "t1", "mend the bug"),
        BoardEntry(BoardPlace(1, "a-2"), TaskState.QUEUED, "Test it", "qa", None, "t2", "test it"),
    ]
    assert [one.id for one in wanted.chosen(entries)] == found
