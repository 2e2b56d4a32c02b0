"""What tmux captures becomes rows of text with a style, in which nothing steers, hides or tells a secret."""

from __future__ import annotations

import pytest

from torch_tasks.model.drawn_screen import DrawnScreen, Run, cells, text_of
from torch_tasks.monitoring.drawing import draw
from torch_tasks.workers.host.screen_publisher import within


def row(line: str) -> list[tuple[str, str]]:
    return [tuple(run) for run in draw([line], 80).rows[0]]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("sgr", "style"),
    [
        ("1;31", "f1 bold"),
        ("92", "f10"),
        ("44", "b4"),
        ("101", "b9"),
        ("38;5;208", "f208"),
        ("48;5;17", "b17"),
        ("38;2;255;0;0", "f196"),
        ("48;2;8;8;8", "b232"),
        ("2;3;4;9", "dim italic underline strike"),
        ("7", "ft bt"),
        ("7;31", "ft b1"),
        ("7;31;42", "f2 b1"),
        ("1;22", ""),
        ("31;39", ""),
        ("4:3", "underline"),
        ("4;58;5;9", "underline"),
    ],
)
def test_each_style_is_words(sgr: str, style: str) -> None:
    sequences = {"4;58;5;9": "\x1b[4m\x1b[58;5;9m"}.get(sgr, f"\x1b[{sgr}m")
    assert row(f"{sequences}x\x1b[0m") == [("x", style)]


def test_a_style_goes_on_in_the_next_line_until_it_ends() -> None:
    first, second = draw(["a\x1b[31mb", "c\x1b[39md"], 80).rows
    assert first == (Run("a"), Run("b", "f1"))
    assert second == (Run("c", "f1"), Run("d"))


def test_of_a_link_its_text_is_kept_and_its_target_dropped() -> None:
    assert row("see \x1b]8;id=1;http://evil.example/\x1b\\the docs\x1b]8;;\x1b\\ now") == [
        ("see ", ""),
        ("the docs", ""),
        (" now", ""),
    ]


def test_line_drawing_becomes_the_lines_that_it_draws() -> None:
    assert row("\x0elqqk\x0f lqqk") == [("┌──┐ lqqk", "")]


def test_concealed_text_is_not_there() -> None:
    assert row("a\x1b[8msecret\x1b[28mb") == [("a", ""), ("      ", ""), ("b", "")]


def test_nothing_is_left_that_hides_or_reorders() -> None:
    hostile = "a\u202eb\u200bc\x07\x1b[2J\x1b[5;5Hd\x9b31me\x1b]0;title\x1b\\f\x1b"
    assert text_of(draw([hostile], 80).rows[0]) == "abcd31mef"


def test_a_screen_from_elsewhere_is_cleaned_too() -> None:
    screen = DrawnScreen.model_validate({"columns": 80, "rows": [[["a\u202e\x1b[31mb", "f1"]]]})
    assert screen.rows == ((Run("a[31mb", "f1"),),)
    with pytest.raises(ValueError, match="pattern"):
        DrawnScreen.model_validate({"columns": 80, "rows": [[["a", 'f1" onclick="x']]]})


def test_a_secret_is_covered_across_styles_and_rows_and_nothing_moves() -> None:
    token = "ghp_" + "a1B2" * 9
    screen = draw([f"{'x' * 60} {token[:10]}\x1b[31m{token[10:19]}", f"{token[19:]}\x1b[0m end"], 80)
    first, second = screen.rows
    assert text_of(first) == f"{'x' * 60} [redacted: a GitHub"
    assert text_of(second) == " token]·············· end"
    assert [run.style for run in first] == ["", "f1"]


def test_marks_go_with_their_character_and_wide_ones_take_two_columns() -> None:
    assert list(cells("ae\u0301漢👩\u200d💻!")) == [("a", 1), ("e\u0301", 1), ("漢", 2), ("👩\u200d💻", 2), ("!", 1)]


def test_a_screen_of_too_many_colours_is_published_without() -> None:
    screen = draw(["".join(f"\x1b[38;5;{number}mx" for number in range(200))], 200)
    assert len(within(screen, 10_000)) > 2000
    assert DrawnScreen.model_validate_json(within(screen, 2000)).rows == ((Run("x" * 200),),)
