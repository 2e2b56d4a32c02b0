"""A terminal's rows as HTML: data in them stays data, and each character keeps its column."""

from __future__ import annotations

import re

from torch_tasks.model.drawn_screen import DrawnScreen, Run
from torch_tasks.monitoring.drawing import draw
from torch_tasks.server.console.pane_rows import (
    THUMB_COLUMNS,
    THUMB_ROWS,
    colour_sheet,
    row_html,
    thumb,
    whole_screen,
)


def test_styles_are_classes_and_texts_are_escaped() -> None:
    row = (Run("<script>alert('1')</script> & "), Run('"x"', "f1 bold"))
    assert row_html(row) == (
        '&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt; &amp; <span class="f1 bold">&quot;x&quot;</span>'
    )


def test_what_a_font_may_draw_wider_or_not_at_all_has_a_box_of_its_columns() -> None:
    assert row_html((Run("a─é漢e\u0301✔"),)) == (
        'a─é<span class="w2">漢</span><span class="w1">e\u0301</span><span class="w1">✔</span>'
    )


def test_the_cursor_is_drawn_in_its_column() -> None:
    row = (Run("ab", "f1"), Run("漢c"))
    assert row_html(row, 1) == ('<span class="f1">a</span><span class="f1 cursor">b</span><span class="w2">漢</span>c')
    assert row_html(row, 3) == '<span class="f1">ab</span><span class="cursor"><span class="w2">漢</span></span>c'
    assert row_html(row, 7) == ('<span class="f1">ab</span><span class="w2">漢</span>c  <span class="cursor"> </span>')


def test_only_the_row_of_the_cursor_has_one() -> None:
    rows = whole_screen(draw(["one", "two", "three"], 20, cursor=(0, 1)))
    assert ["cursor" in row for row in rows] == [False, True, False]


def test_a_small_picture_shows_the_last_rows_that_hold_something() -> None:
    rows = thumb(draw([*(f"{number:03}" + "漢" * 200 for number in range(40)), "", "  "], 403))
    assert len(rows) == THUMB_ROWS
    assert rows[-1].startswith("039")
    assert rows[-1].count("漢") == (THUMB_COLUMNS - 3 + 1) // 2
    assert thumb(DrawnScreen(columns=80)) == []


def test_the_style_sheet_has_every_colour_once() -> None:
    sheet = colour_sheet()
    assert [len(re.findall(rf"\.{name}\d+{{", sheet)) for name in "fb"] == [256, 256]
    assert ".f196{color:#ff0000}.b196{background:#ff0000}" in sheet
    assert ".f255{color:#eeeeee}" in sheet
