"""Menus are read by what they say, in whatever form a program draws them, and never where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.workers.programs.menu import Menu, read_menu
from torch_tasks.workers.programs.screen import Screen

SCREENS = Path(__file__).parents[2] / "screens"
KEEP = ("Keep current model", "Keep current model (never show again)")


def menu(*rows: str, width: int = 80) -> Menu:
    """The menu in these rows."""
    found = read_menu(Screen.parse("\n".join(rows), width=width))
    assert found
    return found


def recorded(name: str) -> Menu:
    found = read_menu(Screen.parse((SCREENS / f"{name}.txt").read_text().split("\n", 2)[2]))
    assert found
    return found


@pytest.mark.parametrize(
    ("screen", "words", "highlighted"),
    [
        ("claude/trust", ("Yes, I trust this folder", "No, exit"), 0),
        ("claude/trust-no-first", ("No, exit", "Yes, I trust this folder"), 0),
        ("claude/api-key", ("Yes", "No"), 1),
        ("claude/review", ("Submit answers", "Cancel"), 0),
        ("claude/question-previews", ("side", "top"), 0),
        ("claude/plan", ("Yes, and use auto mode", "Yes, manually approve edits", "Tell Claude what to change"), 0),
        ("codex/approaching-limit", ("Switch to gpt-6-luna", *KEEP), 0),
        ("gemini/login", ("Sign in with Google", "Use Gemini API Key", "Vertex AI"), 1),
        ("gemini/limited", ("Keep trying", "Stop"), 0),
        ("gemini/folders", ("Yes", "Yes, and remember the directories as trusted", "No"), 0),
        ("aider/question", ("Yes", "No"), None),
    ],
)
def test_the_menus_of_real_programs_are_read(screen: str, words: tuple[str, ...], highlighted: int | None) -> None:
    found = recorded(screen)
    assert (found.words, found.highlighted) == (words, highlighted)


@pytest.mark.parametrize(("screen", "highlighted"), [("claude/theme", 1), ("claude/theme-unnumbered", 0)])
def test_a_theme_is_called_the_same_with_and_without_numbers(screen: str, highlighted: int) -> None:
    found = recorded(screen)
    assert found.words[:3] == ("Auto (match terminal)", "Dark mode", "Light mode")
    assert len(found.choices) == 7
    assert found.highlighted == highlighted


@pytest.mark.parametrize(
    ("rows", "words", "highlighted"),
    [
        (["Which?", "> red", "  blue"], ("red", "blue"), 0),
        (["Which?", "  red", "→ blue"], ("red", "blue"), 1),
        (["Which one is it to be?", "  ● red", "  ○ blue"], ("red", "blue"), 0),
        (["( ) red", "(x) blue"], ("red", "blue"), 1),
        (["│ Which?      │", "│   1. red    │█", "│ ❯ 2. blue   │", "╰─────────────╯"], ("red", "blue"), 1),
        (["\x1b[7mred \x1b[0m", "blue"], ("red", "blue"), 0),
        (["red", "\x1b[48;5;24mblue\x1b[0m"], ("red", "blue"), 1),
        (["❯ red   the colour of roses", "  blue  that of the sea"], ("red", "blue"), 0),
        (["❯ 1. red", "     warm", "", "  2. blue", "     cold"], ("red", "blue"), 0),
        (["  1. Think", "  2. Do it", "  May it?", "❯ 1. Yes", "  2. No"], ("Yes", "No"), 0),
        (["❯ ✔ 赤い色", "    青い色"], ("赤い色", "青い色"), 0),
        (["❯ OK (y)", "  Not now (esc)"], ("OK", "Not now"), 0),
        (["❯ 1. Go on"], ("Go on",), 0),
    ],
)
def test_a_choice_may_be_highlighted_in_many_ways(rows: list[str], words: tuple[str, ...], highlighted: int) -> None:
    found = menu(*rows)
    assert (found.words, found.highlighted) == (words, highlighted)


@pytest.mark.parametrize(
    ("rows", "words", "keys"),
    [
        (["Create it? (Y)es/(N)o [Yes]:"], ("Yes", "No"), "yn"),
        (["Add? (Y)es/(N)o/(S)kip all/(D)on't ask again [Yes]:"], ("Yes", "No", "Skip all", "Don't ask again"), "ynsd"),
        (["Overwrite? [y/N]"], ("Yes", "No"), "yn"),
        (["Proceed (yes/no)?"], ("yes", "no"), ["yes", "no"]),
        (["1) red", "2) blue", "", "Which one [1-2]:"], ("red", "blue"), "12"),
        (["[a] Allow", "[d] Deny", "> "], ("Allow", "Deny"), "ad"),
    ],
)
def test_choices_that_are_typed_are_read_with_their_keys(rows: list[str], words: tuple[str, ...], keys: str) -> None:
    found = menu(*rows)
    assert (found.words, found.highlighted) == (words, None)
    assert [choice.key for choice in found.choices] == list(keys)


def test_what_is_typed_already_is_seen() -> None:
    assert menu("Create it? (Y)es/(N)o [Yes]: n").typed == "n"
    assert menu("Overwrite? [y/N] ").typed == ""


def test_a_wrapped_choice_is_one() -> None:
    rows = ("❯ Yes, and always allow access", "  to all of it", "  No")
    assert menu(*rows, width=34).words == ("Yes, and always allow access to all of it", "No")
    boxed = ("│ ❯ 1. Yes, and always allow │", "│      access to all of it   │", "│   2. No                    │")
    assert menu(*boxed).words == ("Yes, and always allow access to all of it", "No")


def test_a_box_is_no_highlight() -> None:
    found = menu("❯ 1. [ ] kitchen", "  2. [✔] hall", "     Next")
    assert [choice.checked for choice in found.choices] == [False, True, None]
    assert found.highlighted == 0
    below = menu("  1. [ ] kitchen", "  2. [✔] hall", "❯    Next")
    assert below.words == ("kitchen", "hall", "Next")
    assert below.highlighted == 2


def test_a_list_that_goes_on_says_so() -> None:
    found = menu("  ↑ 3. red", "❯ 4. blue", "  ↓ 5. green")
    assert (found.words, found.more_above, found.more_below) == (("red", "blue", "green"), True, True)
    framed = menu("│ ● 1. red  │", "│   2. blue │", "│ ▼         │")
    assert (framed.more_above, framed.more_below) == (False, True)


@pytest.mark.parametrize(
    "rows",
    [
        ["❯ please hold", "", "● part one.", "", "────────", "❯", "────────", "  ? for shortcuts"],
        ["● I did it", "  ⎿  all of it"],
        ["1. Think", "2. Do it", "", "● Done"],
        ["● one", "● two", "● three"],
        ["- red", "- blue"],
        ["is it red/blue or what"],
        ["", ""],
    ],
)
def test_no_menu_is_none(rows: list[str]) -> None:
    assert read_menu(Screen.parse("\n".join(rows))) is None


def test_only_what_stands_below_the_question_counts() -> None:
    screen = Screen.parse("❯ 1. Yes\n  2. No\n\nthe question\n\n  No, exit\n❯ Yes, I trust this folder")
    below = read_menu(screen, 3)
    assert below
    assert below.words == ("No, exit", "Yes, I trust this folder")
    assert read_menu(Screen.parse("❯ 1. Yes\n  2. No\n\nthe question\n\nnothing"), 3) is None


def test_a_prompt_above_the_composer_is_no_menu_of_the_composer() -> None:
    screen = Screen.parse("❯ 1. Yes\n  2. No\n\n────────\n❯ my own\n  draft\n────────")
    found = read_menu(screen, 0, 3)
    assert found
    assert found.words == ("Yes", "No")
