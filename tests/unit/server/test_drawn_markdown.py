"""What agents wrote is drawn as Markdown that loads nothing, runs nothing, and shows where its links lead."""

from __future__ import annotations

import re
import time

import pytest

from torch_tasks.server.console.markdown import LONGEST, drawn


def test_what_is_meant_as_markdown_is_drawn() -> None:
    html = drawn("# Done\n\n- *one*\n- `two`\n\n| a | b |\n|:-|-:|\n| 1 | 2 |\n")
    assert "<h3>Done</h3>" in html, "a text's headings stand under those of the page"
    assert "<li><em>one</em></li>" in html
    assert "<code>two</code>" in html
    assert '<td class="right">2</td>' in html
    assert "style=" not in html, "the console's policy allows no inline style"


def test_a_link_shows_where_it_leads_and_tells_nobody_whence() -> None:
    html = drawn("[your bank](https://evil.example/?a=1) <mailto:a@b.example>")
    assert (
        '<a href="https://evil.example/?a=1" rel="noreferrer noopener nofollow" target="_blank">your bank</a>' in html
    )
    assert "(https://evil.example/?a=1)" in html
    assert "(mailto:a@b.example)" in html


@pytest.mark.parametrize(
    "text",
    [
        "[a](javascript:alert(1))",
        "[a](JaVaScRiPt&colon;alert(1))",
        "[a](data:text/html,<script>alert(1)</script>)",
        "[a](file:///etc/passwd)",
        "[a](/do/fleet.stop)",
        "[a](//evil.example)",
        "<javascript:alert(1)>",
        "[a][b]\n\n[b]: vbscript:alert(1)",
        "<a href='https://evil.example'>a</a>",
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![a](https://evil.example/seen.png)",
        "```<script>\nalert(1)\n```",
    ],
)
def test_nothing_else_becomes_markup(text: str) -> None:
    html = drawn(text)
    assert not re.search(r"<(a|img|script|iframe|svg)\b", html), html


def test_what_hides_or_steers_is_drawn_as_a_sign() -> None:
    html = drawn("\x1b[31mred\u202e and &#x202e; and `\u200b`")
    assert "␛[31mred⟨U+202E⟩ and ⟨U+202E⟩ and <code>⟨U+200B⟩</code>" in html


@pytest.mark.parametrize("piece", ["[", ">", "*a ", "- a\n"])
def test_a_text_that_is_made_to_be_slow_is_drawn_in_time(piece: str) -> None:
    begun = time.process_time()
    drawn(piece * (1_000_000 // len(piece)))
    assert time.process_time() - begun < 5


def test_only_the_beginning_of_a_long_text_is_drawn() -> None:
    assert len(drawn("a" * 1_000_000)) < LONGEST + 100
