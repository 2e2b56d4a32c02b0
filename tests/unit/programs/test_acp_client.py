"""An agent that speaks the Agent Client Protocol: what is drawn, what a person types, what its messages mean."""

from __future__ import annotations

import asyncio
import io

import pytest
from acp import RequestError
from acp.schema import PromptResponse, RequestPermissionRequest

from torch_tasks.workers.programs.acp.stream import ToolRun, failed_turn, usage_of
from torch_tasks.workers.programs.acp.transport import StdioTransport
from torch_tasks.workers.programs.acp.view import LineEditor, PaneView, diff_rows, shortened


class Screen:
    """A view, and the rows that it has drawn above its last line."""

    def __init__(self, columns: int = 40) -> None:
        self._out = io.StringIO()
        self.view = PaneView(self._out, lambda: columns)
        self.view.show_input("ready", "")

    def rows(self) -> list[str]:
        return [line.rpartition("\x1b[K")[2] for line in self._out.getvalue().split("\n")][:-1]

    def last(self) -> str:
        return self._out.getvalue().rpartition("\x1b[K")[2].rpartition("\n")[2]


def test_streamed_text_is_drawn_row_by_row() -> None:
    screen = Screen()
    for piece in ("Hel", "lo\nwor", "ld, and "):
        screen.view.flow(piece)
    assert screen.rows() == ["Hello"]
    screen.view.end_flow()
    assert screen.rows() == ["Hello", "world, and "]
    assert screen.last() == "[ready] > "


def test_long_rows_are_wrapped_and_lose_nothing() -> None:
    screen = Screen()
    words = " ".join(f"word{number}" for number in range(30))
    for at in range(0, len(words), 7):
        screen.view.flow(words[at : at + 7])
    screen.view.end_flow()
    assert "".join(screen.rows()) == words
    assert max(map(len, screen.rows())) < 40


def test_nothing_in_a_text_steers_the_terminal() -> None:
    screen = Screen()
    screen.view.show("\x1b[2J\rone\x07", "● ")
    screen.view.flow("\x1b]0;two\x07\n")
    assert screen.rows() == ["● ␛[2J␍one␇", "␛]0;two␇"]
    screen.view.show_input("ready", "\x1b[Ha draft\nof two lines")
    assert screen.last() == "[ready] > ␛[Ha draft⏎of two lines"


def test_the_end_of_a_long_draft_is_shown() -> None:
    screen = Screen(columns=30)
    screen.view.show_input("working", "漢" * 30 + "the end")
    assert screen.last().endswith("漢the end")
    assert len(screen.last()) < 30


def test_long_texts_are_drawn_in_part() -> None:
    assert shortened("short") == "short"
    assert shortened("x" * 10_000).endswith("\n… and 2,000 more characters")
    assert shortened("row\n" * 100).count("\n") == 40
    screen = Screen()
    screen.view.flow("x" * 1_000_000)
    assert screen.rows()[-1] == "… and 992,000 more characters"


def test_a_change_of_a_file_is_drawn_as_a_diff() -> None:
    assert diff_rows("a.py", "one\ntwo\n", "one\n2\n").splitlines() == [
        "--- a.py",
        "+++ a.py",
        "@@ -1,2 +1,2 @@",
        " one",
        "-two",
        "+2",
    ]
    assert "+new" in diff_rows("a.py", None, "new\n")


class Typed:
    """An editor, and what became of the keys."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.marks: list[str] = []
        self.editor = LineEditor(self.lines.append, lambda: self.marks.append("C-c"), lambda: self.marks.append("C-d"))


def test_a_line_is_edited_and_taken() -> None:
    typed = Typed()
    for keys in ("prö".encode()[:3], "prö".encode()[3:], b"mx\x7f", b"pt\r", b"gone\x15", b"left"):
        typed.editor.feed(keys)
    assert (typed.lines, typed.editor.draft) == (["prömpt"], "left")


def test_keys_that_move_do_nothing_and_a_paste_keeps_its_lines() -> None:
    typed = Typed()
    for keys in (b"\x1b[A\x1bOB\x1b", b"[1;5C", b"\x1b[200~two\rlines\x03\x1b[201~", b"!", b"\r"):
        typed.editor.feed(keys)
    assert typed.lines == ["two\nlines\x03!"]


def test_c_c_interrupts_and_c_d_ends_only_where_nothing_is_typed() -> None:
    typed = Typed()
    typed.editor.feed(b"x\x04\x03\x7f\x04")
    assert typed.marks == ["C-c", "C-d"]


@pytest.mark.parametrize(
    ("code", "message", "data", "kind"),
    [
        (429, "Rate limit exceeded. Try again later.", None, "limit"),
        (-32603, "Internal error", {"details": "You exceeded your current quota"}, "limit"),
        (-32603, "Internal error", {"message": "503 Service Unavailable"}, "overloaded"),
        (-32000, "Authentication required", None, "login"),
        (-32603, "Internal error", {"details": "Cannot read properties of undefined"}, "other"),
    ],
)
def test_what_an_error_means(code: int, message: str, data: object, kind: str) -> None:
    failed = failed_turn(RequestError(code, message, data))
    assert (failed.error, message in failed.text) == (kind, True)


def test_what_a_permission_is_for() -> None:
    def subject(**call: object) -> str:
        request = {"sessionId": "s", "toolCall": {"toolCallId": "1", **call}, "options": []}
        tool = ToolRun()
        tool.learn(RequestPermissionRequest.model_validate(request).tool_call)
        return tool.subject

    assert subject(title="bash", kind="execute", rawInput={"command": "git push"}) == "execute(git push)"
    assert subject(title="git push", kind="execute", locations=[{"path": "/srv"}]) == "execute(git push)"
    assert subject(title="Write a.py", kind="edit", locations=[{"path": "/srv/a.py"}]) == "edit(/srv/a.py)"
    assert subject(title="Something", kind="not of version 1") == "other(Something)"


def test_what_a_turn_used() -> None:
    def used(**fields: object) -> tuple[int, int, float | None] | None:
        usage = usage_of(PromptResponse.model_validate({"stopReason": "end_turn", **fields}), 0.5)
        return usage and (usage.input_tokens, usage.output_tokens, usage.cost_usd)

    counts = {"totalTokens": 9, "inputTokens": 5, "outputTokens": 3, "cachedWriteTokens": 1}
    assert used(usage=counts) == (6, 3, 0.5)
    assert used(_meta={"quota": {"token_count": {"input_tokens": 7, "output_tokens": 2}}}) == (7, 2, 0.5)
    assert used(_meta={"quota": 1}) == (0, 0, 0.5)


def test_lines_that_are_no_messages_are_shown_and_stop_nothing() -> None:
    async def received() -> tuple[list[object], list[str]]:
        reader, garbage = asyncio.StreamReader(limit=2000), []
        lines = [b'{"a": 1}', b"", b"welcome", b"[1]", b'"' + b"x" * 9000 + b'"', b"[" * 1900, b"\xff", b'{"b": 2}']
        reader.feed_data(b"\n".join(lines) + b"\n")
        reader.feed_eof()
        transport = StdioTransport(reader, None, garbage.append)  # type: ignore[arg-type]  # nothing is written
        messages: list[object] = []
        while (message := await transport.receive()) is not None:
            messages.append(message)
        return messages, garbage

    messages, garbage = asyncio.run(received())
    assert messages == [{"a": 1}, {"b": 2}]
    assert [line[:7] for line in garbage] == ["welcome", "[1]", '"xxxxxx', "[[[[[[[", "\ufffd"]
