"""What a person would see in a pane, from the bytes that tmux prints."""

from __future__ import annotations

import pytest

from torch_tasks.workers.programs.screen import Screen

DIM, REVERSE, PLAIN = "\x1b[2m", "\x1b[7m", "\x1b[0m"
ROWS = {
    "plain": ("plain │ 漢字  ", "plain │ 漢字", "plain │ 漢字"),
    "dim": (f"> {DIM}try this{PLAIN} │", "> try this │", ">          │"),
    "a colour, not dim": ("> \x1b[38;5;2mgreen\x1b[0m", "> green", "> green"),
    "a cursor on the suggestion": (f"> {REVERSE}t{PLAIN}{DIM}ry{PLAIN}.", "> try.", ">    ."),
    "a cursor after a text": (f"> text{REVERSE} {PLAIN}", "> text", "> text"),
    "a cursor in a text": (f"> te{REVERSE}x{PLAIN}t", "> text", "> text"),
    "other sequences": ("\x1b]0;title\x07\x0ea\x0f\x1b(Bb", "ab", "ab"),
}


@pytest.mark.parametrize("name", ROWS)
def test_suggestions_are_kept_apart_from_what_was_written(name: str) -> None:
    row, line, solid = ROWS[name]
    screen = Screen.parse(row)
    assert (screen.lines, screen.solid) == ((line,), (solid,))


def test_looks_go_on_in_the_next_row() -> None:
    screen = Screen.parse(f"one {DIM}two\nthree{PLAIN} four\n")
    assert screen.lines == ("one two", "three four", "")
    assert screen.solid == ("one", "      four", "")
    assert screen.text == "one two\nthree four"
