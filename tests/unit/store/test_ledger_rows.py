"""Which state of a ledger's row may follow which."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from torch_tasks.store.ledger import ROW_TRANSITIONS, Ledger, RowState

ENDED = {"state": "succeeded", "queue": "q", "revision": "2"}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite", "here")


def in_state(ledger: Ledger, state: RowState) -> str:
    """A task whose row is in this state."""
    ledger.write("t", "q", "message")
    if state is RowState.CLOSED:
        ledger.close("t", ENDED)
    else:
        ledger.note("t", state)
    assert ledger.state("t") is state
    return "t"


@pytest.mark.parametrize(("before", "after"), list(itertools.product(RowState, RowState)))
def test_a_row_comes_only_into_states_that_may_follow(ledger: Ledger, before: RowState, after: RowState) -> None:
    task = in_state(ledger, before)
    ledger.note(task, after)
    assert ledger.state(task) is (after if after in ROW_TRANSITIONS[before] else before)


@pytest.mark.parametrize("before", RowState)
def test_each_row_that_has_not_ended_may_be_published_anew_and_closed(ledger: Ledger, before: RowState) -> None:
    task = in_state(ledger, before)
    assert ledger.write(task, "q", "message") is before
    assert ledger.state(task) is (before if before is RowState.CLOSED else RowState.WRITTEN)
    ledger.close(task, ENDED)
    assert ledger.state(task) is RowState.CLOSED


def test_what_was_published_meanwhile_is_not_spooled_again(ledger: Ledger) -> None:
    """Two processes enqueue one task: one finds the broker away while the other publishes it."""
    task = in_state(ledger, RowState.SPOOLED)
    before = ledger.write(task, "q", "message")
    ledger.note(task, RowState.PUBLISHED)
    ledger.take_back(task, before, forgotten=True)
    assert ledger.state(task) is RowState.PUBLISHED


def test_a_row_that_was_written_again_is_not_dropped(ledger: Ledger) -> None:
    """One process withdraws a task that another one enqueues anew at the same moment."""
    task = in_state(ledger, RowState.WITHDRAWN)
    (row,) = ledger.unsent()
    assert ledger.is_as_read(row)
    ledger.write(task, "q", "message")
    assert not ledger.is_as_read(row)
    ledger.drop(row)
    assert ledger.state(task) is RowState.WRITTEN
    ledger.note(task, RowState.WITHDRAWN)
    (again,) = ledger.unsent()
    ledger.drop(again)
    assert ledger.state(task) is None


def test_a_former_brokers_rows_go_on_where_they_were(ledger: Ledger) -> None:
    former = Ledger(ledger.path, "there")
    for number, state in enumerate((RowState.SPOOLED, RowState.PUBLISHED, RowState.WITHDRAWN, RowState.LOST)):
        former.write(f"task-{number}", "q", f"message {number}")
        former.note(f"task-{number}", state)
    former.close("ended", ENDED)
    assert ledger.adopt("there") == 4
    rows = ledger.open_after(0, 10)
    assert [(row.task_id, row.state, ledger.message(row)) for row in rows] == [
        ("task-0", RowState.SPOOLED, "message 0"),
        ("task-1", RowState.PUBLISHED, "message 1"),
        ("task-2", RowState.WITHDRAWN, "message 2"),
        ("task-3", RowState.LOST, "message 3"),
    ]
    (ended,) = ledger.closed_after(0, 10)
    assert (ended.task_id, ledger.account(ended)) == ("ended", ENDED)
    assert former.summary().open == 0


def test_a_broker_that_knew_a_ledger_does_not_know_one_with_a_former_brokers_rows(ledger: Ledger) -> None:
    name = ledger.name
    assert ledger.adopt("there") == 0
    assert ledger.name == name
    Ledger(ledger.path, "there").write("t", "q", "message")
    ledger.adopt("there")
    assert ledger.name != name


def test_a_task_that_has_a_row_under_both_brokers_keeps_the_one_of_now(ledger: Ledger) -> None:
    Ledger(ledger.path, "there").write("t", "q", "of before")
    ledger.write("t", "q", "of now")
    name = ledger.name
    assert ledger.adopt("there") == 0
    (row,) = ledger.open_after(0, 10)
    assert (ledger.message(row), ledger.name) == ("of now", name)
