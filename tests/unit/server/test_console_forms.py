"""What a page of the console makes of its address, its lists and its forms."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from torch_tasks.caller import Caller
from torch_tasks.errors import InvalidRequest, RequestNotTaken
from torch_tasks.model.asker import Asker
from torch_tasks.model.hold import Hold
from torch_tasks.orchestration.holds import HoldReport
from torch_tasks.server.console.acting import FilledForm
from torch_tasks.server.console.paging import page_of
from torch_tasks.server.console.spawning import SpawnChoices
from torch_tasks.server.console.words import place_of, said_of


def test_a_form_gives_each_field_and_the_words_of_its_lists() -> None:
    body = b"_proof=p&_once=o&_then=%2Ffleet&role=qa&skills%5B%5D=go%2C+sql%0D%0Apython&workdir=&reply=a%0D%0Ab"
    form = FilledForm.read("agent.spawn", body)
    assert (form.proof, form.once, form.then) == ("p", "o", "/fleet")
    assert form.fields == {"role": ["qa"], "skills": ["go", "sql", "python"], "reply": ["a\nb"]}


def test_a_form_asks_for_nothing_that_only_reads_and_gives_no_field_twice() -> None:
    with pytest.raises(RequestNotTaken, match="changes nothing"):
        FilledForm.read("agent.list", b"").perform()
    with pytest.raises(InvalidRequest, match="'task_id' is given 2 times"):
        FilledForm.read("task.drop", b"task_id=a&task_id=b").perform()


@pytest.mark.parametrize(
    ("asked", "number", "items"),
    [
        (None, 1, [0, 1, 2]),
        ("2", 2, [3, 4, 5]),
        ("3", 3, [6]),
        ("9", 3, [6]),
        ("0", 1, [0, 1, 2]),
        ("-1", 1, [0, 1, 2]),
        ("two", 1, [0, 1, 2]),
        ("9" * 5000, 1, [0, 1, 2]),
        ("²", 1, [0, 1, 2]),
    ],
)
def test_a_list_has_pages(asked: str | None, number: int, items: list[int]) -> None:
    page = page_of(range(7), asked, 3)
    assert (page.number, page.pages, page.total, list(page.items)) == (number, 3, 7, items)


def test_an_empty_list_has_one_page() -> None:
    assert (page_of([], "3", 5).number, page_of([], None, 5).pages) == (1, 1)


def test_what_tasks_ask_for_becomes_the_fields_of_an_agent() -> None:
    choices = SpawnChoices(roles=(), kinds=("claude", "shell"), skills=(), nodes=())
    assert choices.parted(("claude", "python", "sql")) == ("claude", "python, sql")
    assert choices.parted(("python",)) == ("shell", "python")
    assert choices.parted(()) == ("shell", "")


def test_a_person_is_told_what_an_order_reached() -> None:
    hold = Hold(by=Asker.of(Caller()), at=datetime(2026, 3, 1, tzinfo=UTC))
    assert said_of("fleet.stop", None, HoldReport(scope="stop", hold=hold)) == "the fleet is held"
    report = HoldReport(scope="agent dev-1", hold=hold, silent=("dev-1",))
    assert said_of("agent.pause", None, report).startswith("agent dev-1 is held; no word yet from dev-1")
    lifted = HoldReport(scope="all", hold=hold.model_copy(update={"lifted": True}))
    assert said_of("agent.resume", None, lifted) == "every agent goes on"


def test_an_operation_without_words_of_its_own_is_said_to_be_done() -> None:
    assert said_of("pool.grow", None, None) == "pool.grow: done"
    assert place_of("pool.grow", None, None, "/") is None


@pytest.mark.parametrize(
    ("at", "place"),
    [("/time/a%3Ab", "/time"), ("/time/a%3Ab?need=x", "/time"), ("/time", None), ("/", None), ("/time/other", None)],
)
def test_who_removes_what_a_page_is_about_goes_on_at_the_page_of_the_others(at: str, place: str | None) -> None:
    asked = SimpleNamespace(checkin_id="a:b")
    assert place_of("checkin.remove", asked, None, at) == place
