"""What a look at any program's screen says of a text that was typed into it."""

from __future__ import annotations

import pytest

from torch_tasks.errors import InvalidMessage
from torch_tasks.workers.tmux.delivery import EnterEffect, Snapshot, StagedText, typeable
from torch_tasks.workers.tmux.pane import comparable


def screen(*rows: str, cursor: tuple[int, int]) -> Snapshot:
    return Snapshot(rows, cursor)


BEFORE = screen("welcome", "> build it", "─────", cursor=(10, 1))
STAGED = StagedText("buildit", BEFORE, end=1)


@pytest.mark.parametrize(
    ("later", "effect"),
    [
        (BEFORE, EnterEffect.STAYS),
        (screen("> build it", "─────", cursor=(10, 0)), EnterEffect.STAYS),  # the screen scrolled
        (screen("> build it", "─────", "busy", cursor=(10, 0)), EnterEffect.STAYS),  # something else is drawn below
        (screen("welcome", "> ", "─────", cursor=(2, 1)), EnterEffect.LEFT),
        (screen("> build it", "working", "> ", cursor=(2, 2)), EnterEffect.LEFT),  # it stands above, as a prompt
        (screen("welcome", "> build it", "", "─────", cursor=(0, 2)), EnterEffect.NEW_LINE),
        (screen("> build it", "> build it", "─────", cursor=(2, 2)), EnterEffect.LEFT),  # seen once more
        (screen(cursor=(0, 0)), EnterEffect.LEFT),
    ],
)
def test_enter_sends_a_text_begins_a_line_or_is_lost(later: Snapshot, effect: EnterEffect) -> None:
    assert STAGED.effect(later) is effect


def test_a_text_is_found_over_the_ends_of_rows_and_whatever_blanks_are_drawn() -> None:
    wrapped = screen("│ > build  ", "│ it now │", cursor=(6, 1))
    assert wrapped.count(comparable("it now")) == 1
    assert wrapped.end_of(comparable("build")) == 0
    assert wrapped.end_of(comparable("now")) == 1
    assert wrapped.end_of("elsewhere") is None
    assert wrapped.before_cursor == comparable("> build it n")
    assert wrapped.row(7) == ""


@pytest.mark.parametrize(("text", "typed"), [("a\r\nb", "a\nb"), ("a\rb", "a\nb"), ("tab\tstays", "tab\tstays")])
def test_line_feeds_are_the_only_line_ends(text: str, typed: str) -> None:
    assert typeable(text) == typed


@pytest.mark.parametrize("text", ["", " \n", "a\x1bb", "a\x03", "a\x9b"])
def test_what_a_terminal_takes_for_a_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidMessage):
        typeable(text)
