"""What a screen means that no rule was written for, by the file for any program: quoted questions, unknown menus."""

from __future__ import annotations

import pytest

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.screen import Screen, read_composer
from torch_tasks.workers.programs.screen_reading import ScreenReading, ScreenRules
from torch_tasks.workers.programs.unknown_menu import unless_menu

COMPOSER = "╭────────────╮\n│ >          │\n╰────────────╯\n  ? for shortcuts"
DRAFT = COMPOSER.replace(">     ", "> draft")
QUOTES = {
    "a permission": "● It printed:\n  Do you want to proceed? ❯ 1. Yes\n    2. No",
    "a permission, as drawn": "● It said\n  Do you want to proceed?\n  ❯ 1. Yes\n    2. No",
    "a sentence": "● Done. Do you want to proceed with the next step?",
    "an answered one": "Allow Bash(make)?\n> y",
}


def read(text: str) -> ScreenReading:
    config = kind_config("generic")
    screen = Screen.parse(text)
    composer = unless_menu(read_composer(screen, config.composer), screen)
    return ScreenReading.of(screen, composer, ScreenRules(config).read(screen, composer), None)


@pytest.mark.parametrize("quote", QUOTES)
def test_a_question_above_an_input_line_that_waits_is_only_quoted(quote: str) -> None:
    view = read(f"{QUOTES[quote]}\n\n{COMPOSER}")
    assert view.composer.is_empty
    assert (view.best.state, view.best.question) == (AgentState.READY, None)


def test_what_is_typed_into_the_input_line_may_be_the_answer() -> None:
    view = read(f"Do you want to proceed? [y/N]\n\n{COMPOSER}")
    assert view.best.state is AgentState.WAITING
    assert view.best.question is not None
    assert view.best.question.text == "Do you want to proceed?"


def test_a_question_in_the_input_lines_place_is_asked() -> None:
    view = read("● Working\n\n Do you want to proceed?\n ❯ 1. Yes\n   2. No\n\n Esc to cancel")
    assert view.best.state is AgentState.WAITING
    assert view.best.question is not None
    assert view.best.question.choices == ("Yes", "No")


GERMAN = """\
╭────────────────────────────╮
│ Der neuen Lizenz zustimmen? │
│ Sie gilt ab dem 1. Mai.     │
│                             │
│ ❯ Ja, zustimmen             │
│   Nein, beenden             │
╰────────────────────────────╯
  Eingabetaste: bestätigen"""


def test_a_menu_that_no_rule_knows_is_shown_with_its_choices() -> None:
    view = read(GERMAN)
    assert not view.composer.seen  # its pointer looks like the prompt of an input line
    assert view.best.state is AgentState.UNKNOWN
    question = view.best.offers
    assert question is not None
    assert question.in_words == (
        "Der neuen Lizenz zustimmen? Sie gilt ab dem 1. Mai. (1 Ja, zustimmen | 2 Nein, beenden)"
    )


@pytest.mark.parametrize(
    "text", ["", "one line", "commit 1d1e\n\n    Mend it\n\n> a quotation\n> \n(END)\n:", COMPOSER, DRAFT]
)
def test_what_is_no_menu_offers_nothing(text: str) -> None:
    view = read(text)
    assert view.best.offers is None
    assert view.composer == read_composer(view.screen, kind_config("generic").composer)
