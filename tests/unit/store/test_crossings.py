"""What waits on this machine for other fleets: in order, each once, and never a part of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.crossing import Crossing
from torch_tasks.store.crossings import Crossings


def crossing_of(request_id: str, operation: str = "message.send", **fields: object) -> Crossing:
    said = json.dumps({"id": request_id, **fields})
    return Crossing(id=request_id, fleet="eu", operation=operation, fields=said, by="operator", target="dev-1")


@pytest.fixture
def crossings(tmp_path: Path) -> Crossings:
    return Crossings(tmp_path / "crossings")


def ids(crossings: Crossings) -> list[str]:
    return [one.id for _, one in crossings.waiting("eu")]


def test_an_id_with_which_another_ends_is_another(crossings: Crossings) -> None:
    for one in ("letter-7", "7", "letter-7", "r-7"):
        crossings.keep(crossing_of(one))
    assert ids(crossings) == ["letter-7", "7", "r-7"]
    assert not crossings.waits("message.send", "letter")


def test_a_task_and_a_message_of_one_id_are_two(crossings: Crossings) -> None:
    crossings.keep(crossing_of("x"))
    assert not crossings.waits("task.enqueue", "x")
    crossings.keep(crossing_of("x", "task.enqueue"))
    assert crossings.waits("task.enqueue", "x")
    assert crossings.counts("eu") == (2, 0)


def test_the_order_stays_when_the_clock_is_put_back(crossings: Crossings, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, moment in enumerate((2_000, 1_000, 1_000, 3_000)):
        monkeypatch.setattr("time.time_ns", lambda now=moment: now)
        crossings.keep(crossing_of(str(number)))
    assert ids(crossings) == ["0", "1", "2", "3"]


def test_what_a_full_disk_does_not_take_is_not_accepted(small_disk: Path) -> None:
    crossings = Crossings(small_disk / "crossings")
    crossings.keep(crossing_of("before"))
    with pytest.raises(StateFolderUnusable, match="No space left"):
        crossings.keep(crossing_of("too much", text="x" * (4 << 20)))
    assert ids(crossings) == ["before"]
    assert [one for one in (small_disk / "crossings/eu/waiting").iterdir() if one.name.startswith(".")] == []


def test_what_cannot_be_read_holds_up_nothing_and_is_named(crossings: Crossings, tmp_path: Path) -> None:
    for one in ("a", "b", "c"):
        crossings.keep(crossing_of(one))
    broken = sorted((tmp_path / "crossings/eu/waiting").iterdir())[1]
    broken.write_text("{")
    waiting = crossings.waiting("eu")
    assert [next(waiting)[1].id, next(waiting)[1].id] == ["a", "c"]
    with pytest.raises(StateFolderUnusable, match=broken.name):
        next(waiting)
    assert crossings.counts("eu") == (3, 0)


def test_what_was_refused_is_kept_with_the_reason(crossings: Crossings, tmp_path: Path) -> None:
    crossings.keep(crossing_of("a"))
    [(file, crossing)] = crossings.waiting("eu")
    crossings.refuse(file, crossing, "no agent of this name")
    assert crossings.counts("eu") == (0, 1)
    [kept] = (tmp_path / "crossings/eu/refused").iterdir()
    assert Crossing.model_validate_json(kept.read_bytes()).refusal == "no agent of this name"


def test_the_time_that_a_message_may_take_begins_when_it_is_accepted_here() -> None:
    crossing = crossing_of("a", expires=60.0)
    begin = crossing.accepted_at
    assert crossing.fields_at(begin + 20) == {"id": "a", "expires": 40.0}
    assert crossing.fields_at(begin - 20) == {"id": "a", "expires": 60.0}
    assert crossing.fields_at(begin + 60) is None
    assert crossing_of("b").fields_at(begin + 1e9) == {"id": "b"}
