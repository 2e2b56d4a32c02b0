"""What is asked now, of all that was told and is shown, and what a person's answer to it means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch_tasks.model.task import Question
from torch_tasks.workers.programs.composer import telling
from torch_tasks.workers.programs.events import Event

_NUMBERS = re.compile(r"[\d,\s]*")


@dataclass(frozen=True)
class Reply:
    """An answer to a question."""

    numbers: tuple[int, ...]
    """The choices that are taken."""
    text: str = ""
    """What is written into the last of them."""


def understood(said: str, question: Question, text_choice: re.Pattern[str] | None) -> Reply | None:
    """What a person means who says this: the numbers or the words of choices, or a text where one of them takes it."""
    written = _first(question, text_choice)
    whole = _number(said, question)
    numbers = [whole] if whole else [_number(part, question) for part in said.split(",") if question.several]
    taken = tuple(dict.fromkeys(number for number in numbers if number and number != written))
    if taken and len(taken) == len(set(numbers)):
        return Reply(taken)
    words = said.strip().casefold()
    is_permission = bool(question.subject) and words in ("allow", "deny")
    is_text = not (whole or is_permission or _NUMBERS.fullmatch(words))
    return Reply((written,), said) if written and is_text else None


def _number(said: str, question: Question) -> int:
    """The number of the choice that is meant, or 0."""
    words = said.strip().casefold()
    if words.isdecimal():
        return int(words) if int(words) <= len(question.choices) else 0
    return next((number for number, choice in enumerate(question.choices, 1) if choice.casefold() == words), 0)


def _first(question: Question, pattern: re.Pattern[str] | None) -> int:
    found = (number for number, choice in enumerate(question.choices, 1) if pattern and pattern.search(choice))
    return next(found, 0)


def merged(told: Event | None, seen: Question | None) -> Question | None:
    """What was told of a question, with what only the screen shows: its choices, and which one of several it is."""
    said = told.question if told else None
    if told is None or said is None or seen is None:
        return said or seen
    if said.subject:
        return said if said.choices else said.model_copy(update={"choices": seen.choices})
    parts = [part for part in told.parts if telling(seen.text) in telling(part.text)]
    return min(parts, key=lambda part: len(part.text), default=seen if seen.choices else said)
