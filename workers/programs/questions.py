"""A program's questions, who answers them (the policy or a person), and what the answer means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch_tasks.model.task import Permissions, Question
from torch_tasks.workers.programs.config import PermissionsConfig
from torch_tasks.workers.programs.events import ProgramEvent
from torch_tasks.workers.tmux.pane import comparable

_NUMBERS = re.compile(r"[\d,\s]*")


@dataclass(frozen=True)
class ChosenAnswer:
    """An answer to a question: the numbers of its choices, and a text for the last of them."""

    numbers: tuple[int, ...]
    text: str = ""


def understand_answer(words: str, question: Question, text_choice: re.Pattern[str] | None) -> ChosenAnswer | None:
    """The answer that a person's words mean: numbers or names of choices, or a text if a choice takes one."""
    written = next(
        (n for n, choice in enumerate(question.choices, 1) if text_choice and text_choice.fullmatch(choice)), 0
    )
    whole = _number(words, question)
    numbers = [whole] if whole else [_number(part, question) for part in words.split(",") if question.several]
    taken = tuple(dict.fromkeys(number for number in numbers if number and number != written))
    if taken and len(taken) == len(set(numbers)):
        return ChosenAnswer(taken)
    lowered = words.strip().casefold()
    is_permission = bool(question.subject) and lowered in ("allow", "deny")
    is_text = not (whole or is_permission or _NUMBERS.fullmatch(lowered))
    return ChosenAnswer((written,), words) if written and is_text else None


def _number(words: str, question: Question) -> int:
    """The number of the choice that these words name, or 0."""
    lowered = words.strip().casefold()
    if lowered.isdecimal():
        return int(lowered) if int(lowered) <= len(question.choices) else 0
    return next((number for number, choice in enumerate(question.choices, 1) if choice.casefold() == lowered), 0)


def merge_question(reported: ProgramEvent | None, seen: Question | None) -> Question | None:
    """The question that an event reports, with the choices, or the one of several questions, that the screen shows."""
    question = reported.question if reported else None
    if reported is None or question is None or seen is None:
        return question or seen
    if question.subject:
        offered = {"choices": seen.choices, "lasting": seen.lasting}
        return question if question.choices else question.model_copy(update=offered)
    parts = [part for part in reported.parts if comparable(seen.text) in comparable(part.text)]
    return min(parts, key=lambda part: len(part.text), default=seen if seen.choices else question)


def decide_permission(
    question: Question, wanted: Permissions | None, config: PermissionsConfig
) -> tuple[bool, str] | None:
    """Whether the policy allows it, and which rule decides; None if a person decides.

    ``wanted`` is the task's own setting. A pattern that denies wins over it; any other question is a person's.
    """
    subject = question.subject
    if not subject:
        return None
    for pattern in config.deny:
        if fnmatchcase(subject, pattern):
            return False, f"the pattern {pattern!r}"
    for pattern in config.allow:
        if fnmatchcase(subject, pattern):
            return True, f"the pattern {pattern!r}"
    mode = wanted or config.mode
    if mode is Permissions.ASK:
        return None
    return mode is Permissions.ALLOW, "the task's permissions" if wanted else "the kind's permissions"
