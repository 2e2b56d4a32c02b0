"""What a person's answer means, and which question it answers."""

from __future__ import annotations

import re

import pytest

from torch_tasks.model.task import Question
from torch_tasks.workers.programs.answering import Dialogs, says
from torch_tasks.workers.programs.config import DialogConfig, kind_config
from torch_tasks.workers.programs.events import EventKind, ProgramEvent
from torch_tasks.workers.programs.questions import ChosenAnswer, merge_question, understand_answer
from torch_tasks.workers.programs.screen import Screen

WRITTEN = re.compile("Type something.*")
COLOUR = Question(text="Which colour?", choices=("red", "blue", "Type something."))
ROOMS = Question(text="Which rooms?", choices=("kitchen", "hall", "Type something."), several=True)
MENU = Question(text="Where does the menu stand?", choices=("side", "top"))
MAY = Question(text="May it?", choices=("Yes", "No"), subject="Bash(ls)")
PLAN = Question(text="It has a plan", choices=("Yes", "Type something else"), subject="ExitPlanMode()")


@pytest.mark.parametrize(
    ("question", "words", "reply"),
    [
        (COLOUR, "2", ChosenAnswer((2,))),
        (COLOUR, " Blue ", ChosenAnswer((2,))),
        (COLOUR, "green", ChosenAnswer((3,), "green")),
        (COLOUR, "red, blue", ChosenAnswer((3,), "red, blue")),
        (COLOUR, "3", None),
        (COLOUR, "7", None),
        (COLOUR, "", None),
        (COLOUR, "allow", ChosenAnswer((3,), "allow")),
        (ROOMS, "1,2", ChosenAnswer((1, 2))),
        (ROOMS, "hall, 1, 1", ChosenAnswer((2, 1))),
        (ROOMS, "hall", ChosenAnswer((2,))),
        (ROOMS, "hall, cellar", ChosenAnswer((3,), "hall, cellar")),
        (ROOMS, "1,3", None),
        (MENU, "left", None),
        (MAY, "No", ChosenAnswer((2,))),
        (MAY, "allow", None),
        (PLAN, "deny", None),
        (PLAN, "do less", ChosenAnswer((2,), "do less")),
    ],
)
def test_an_answer_is_understood_or_refused(question: Question, words: str, reply: ChosenAnswer | None) -> None:
    assert understand_answer(words, question, WRITTEN) == reply


def test_the_screen_shows_which_part_is_asked() -> None:
    longer = COLOUR.model_copy(update={"text": "Which colour? And which shade?"})
    reported = ProgramEvent(EventKind.QUESTION, question=longer, parts=(longer, COLOUR, ROOMS))
    assert merge_question(reported, Question(text="Which rooms?", choices=("[ ] kitchen",))) == ROOMS
    assert merge_question(reported, Question(text="Which colour?", choices=("red",))) == COLOUR
    review = Question(text="Ready to submit your answers?", choices=("Submit answers", "Cancel"))
    assert merge_question(reported, review) == review
    assert merge_question(reported, Question(text="Esc to cancel")) == longer
    assert merge_question(reported, None) == longer


def test_a_dialog_that_torchs_own_text_quotes_is_none() -> None:
    trust = DialogConfig(pattern=re.compile("Do you trust the files in this folder"), keys=("Enter",))
    dialogs = Dialogs([trust])
    shown = Screen.parse("│ Do you trust the files in this folder? │")
    assert dialogs.find(shown, "") is trust
    assert dialogs.find(shown, "ask me:\nDo you trust the files in this folder?") is None


@pytest.mark.parametrize(
    ("words", "shown", "is_said"),
    [
        ("Type something.", "Type something", True),
        ("Use tabs (Recommended)", "Use tabs", True),
        ("Go  on, 日本", "go on, 日本", True),
        ("Yes, and never ask for this again", "Yes, and never…", True),
        ("Yes", "Yes, always", False),
        ("Yes, always", "Yes", False),
        ("Yes", "…", False),
    ],
)
def test_a_choice_is_known_by_its_words_however_they_are_drawn(words: str, shown: str, is_said: bool) -> None:
    assert says(words)(shown) is is_said


@pytest.mark.parametrize(
    "words",
    [
        "Yes, and always allow access to work/ from this project",
        "Yes, and switch to auto mode · auto mode handles these prompts for you",
        "Yes, allow all edits during this session",
        "Yes, and don\u2019t ask again for `touch x`",
        "Keep current model (never show again)",
        "Allow for this session",
        "Skip all",
    ],
)
def test_what_changes_something_for_later_is_known_by_its_words(words: str) -> None:
    kinds = ("claude", "codex", "gemini", "aider")
    assert any(kind_config(kind).answers.lasting.search(words) for kind in kinds)


@pytest.mark.parametrize("kind", ["claude", "codex", "gemini", "aider", "generic"])
@pytest.mark.parametrize(
    "words", ["Yes", "No", "Yes, proceed", "Allow once", "No, and tell Codex what to do differently"]
)
def test_what_is_for_this_once_is_no_lasting_choice(kind: str, words: str) -> None:
    assert not kind_config(kind).answers.lasting.search(words)
