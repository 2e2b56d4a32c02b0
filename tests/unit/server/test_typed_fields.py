"""What people type into forms becomes what operations take, and what is nothing of the kind is named by them."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks.errors import InvalidRequest, InvalidTask
from torch_tasks.operations.operation import operation_named, request_of
from torch_tasks.server.console.acting import FilledForm
from torch_tasks.server.console.typed_fields import typed

ENQUEUE = operation_named("task.enqueue")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("prompt", "12", "12"),
        ("timeout", "90", 90.0),
        ("timeout", "1h30m", 5400.0),
        ("timeout", "soon", "soon"),
        ("max_retries", " 3 ", 3),
        ("max_retries", "-1", -1),
        ("max_retries", "3.5", "3.5"),
        ("max_retries", "9" * 5000, "9" * 5000),
        ("max_retries", "\u0663", "\u0663"),
        ("fresh", "true", True),
        ("fresh", "false", False),
        ("fresh", "maybe", "maybe"),
        ("context", '{"a": [1]}', {"a": [1]}),
        ("context", "[" * 100_000, "[" * 100_000),
        ("no_such_field", "x", "x"),
    ],
)
def test_a_field_gets_the_value_that_it_takes(name: str, text: str, value: Any) -> None:
    assert typed(ENQUEUE, name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("timeout", "soon"), ("timeout", "-1"), ("max_retries", "3.5"), ("max_retries", "-1"), ("fresh", "maybe")],
)
def test_what_is_wrong_with_a_field_is_said_by_its_name(name: str, text: str) -> None:
    with pytest.raises((InvalidRequest, InvalidTask), match=f": {name}: "):
        request_of(ENQUEUE, {"prompt": "x", name: typed(ENQUEUE, name, text)})


def test_a_refused_form_knows_what_was_typed() -> None:
    form = FilledForm.read("task.enqueue", b"prompt=a+%26+b&skills%5B%5D=x,+y&title=&_proof=p")
    assert form.as_typed == {"prompt": "a & b", "skills": "x y"}
