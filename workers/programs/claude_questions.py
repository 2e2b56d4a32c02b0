"""What Claude Code asks, and the keys that answer a question of the model's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch_tasks.model.task import Question
from torch_tasks.workers.programs.questions import Reply

PLAN = "ExitPlanMode()"
"""The subject of the question whether it may go on with its plan."""
_TEXT_CHOICE = "Type something."
_CURSOR = re.compile(r"^\u276f (\d+)\.", re.MULTILINE)
_CHECKED = re.compile(r"^(?:\u276f| ) (\d+)\. \[✔\]", re.MULTILINE)


def questions(tool: str, given: Mapping[str, Any]) -> tuple[Question, ...]:
    """What its request to use this tool asks, part by part."""
    if tool == "AskUserQuestion":
        return tuple(_question(asked) for asked in given["questions"])
    if tool == "ExitPlanMode":
        return (Question(text=f"It has a plan and asks to go on:\n{given.get('plan', '')}", subject=PLAN),)
    words = next((given[name] for name in ("command", "file_path", "url", "query") if given.get(name)), "")
    subject = f"{tool}({words})"
    return (Question(text=f"It asks for the permission to use {subject}", subject=subject),)


def _question(asked: Mapping[str, Any]) -> Question:
    options = asked["options"]
    choices = [str(option["label"]) for option in options]
    if not any(option.get("preview") for option in options):  # beside previews there is no room for words
        choices.append(_TEXT_CHOICE)
    return Question(text=str(asked["question"]), choices=tuple(choices), several=bool(asked.get("multiSelect")))


def choosing(screen: str, question: Question, reply: Reply) -> list[str] | None:
    """The keys that answer the question on the screen; None if it is none of the model's own.

    A number takes a choice only in some of these dialogs, and is a text where a text is being written: so the cursor
    is moved there, from where it is.
    """
    if "Enter to select" not in screen.rpartition("\n")[2]:
        return None
    found = _CURSOR.search(screen)
    below = len(question.choices) + 1  # where a choice of several is left
    cursor = int(found[1]) if found else below
    if not question.several:
        return [*_moves(cursor, reply.numbers[-1]), *(["{text}"] if reply.text else []), "Enter"]
    checked = {int(number) for number in _CHECKED.findall(screen)}
    wanted = set() if reply.text else set(reply.numbers)
    keys = _moves(cursor, 1)
    keys += [str(number) for number in sorted(checked ^ wanted)]
    if reply.text:
        keys += [*_moves(1, reply.numbers[-1]), "{text}"]
    return [*keys, *_moves(reply.numbers[-1] if reply.text else 1, below), "Enter"]


def _moves(start: int, end: int) -> list[str]:
    return ["Down" if end > start else "Up"] * abs(end - start)
