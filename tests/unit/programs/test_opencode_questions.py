"""What a person's reply means to OpenCode's server when its model asks something."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks.workers.programs.opencode.server import chosen, chosen_from


def asks(*questions: tuple[str, bool]) -> dict[str, Any]:
    options = [{"label": "red", "description": ""}, {"label": "blue", "description": ""}]
    return {"questions": [{"question": words, "options": options, "multiple": several} for words, several in questions]}


COLOUR, SEVERAL = ("Which colour?", False), ("Which colours?", True)


@pytest.mark.parametrize(
    ("request_", "reply", "answers"),
    [
        (asks(COLOUR), "2", [["blue"]]),
        (asks(COLOUR), "Red", [["red"]]),
        (asks(COLOUR), "a shade of green", [["a shade of green"]]),
        (asks(SEVERAL), "1, blue", [["red", "blue"]]),
        (asks(COLOUR, SEVERAL), "2\nred, 2", [["blue"], ["red", "blue"]]),
        (asks(COLOUR, SEVERAL), "2", None),
    ],
)
def test_a_reply_means_choices_or_words(request_: dict[str, Any], reply: str, answers: list[list[str]] | None) -> None:
    assert chosen(request_, reply) == answers


def test_one_question_has_its_choices_and_several_are_asked_together() -> None:
    one, two = chosen_from(asks(SEVERAL)), chosen_from(asks(COLOUR, SEVERAL))
    assert (one.text, one.choices, one.several) == ("Which colours?", ("red", "blue"), True)
    assert two.text.splitlines()[:2] == ["Which colour?", "Which colours?"]
    assert not two.choices
