"""Tables fit the terminal: ids and states whole, long texts cut or wrapped, what matters least left out."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from torch_tasks.cli import agents, checkins, collaboration, dead_letters, fleet, messages, nodes, output, tables, tasks
from torch_tasks.cli.tables import Column, as_lines, cut, lay_out, one_below_the_other, side_by_side, state, wrapped
from torch_tasks.model.agent import AgentState, AgentStatus
from torch_tasks.model.checkin import CheckinState, SlotOutcome
from torch_tasks.model.message import MessageState
from torch_tasks.model.node import KeptState
from torch_tasks.model.spawn import SpawnState
from torch_tasks.model.task import TaskState

TEXT = "Write a parser for roman numerals, with tests, and tell what was hard about it: 一二三四五六七八九十"
COLUMNS = (Column("ID"), state(), Column("LOAD", spare=2), cut("FOR", spare=1), cut("PROMPT", least=16))
ROWS = [
    ("developer-1", "working", "0.5", "developer+python", TEXT),
    ("a-developer-with-a-long-name", "ready", "0", "any", "echo"),
]
#: Each list that a person reads, with ids as long as they usually are, and the headings that 80 columns must keep.
LISTS: dict[str, tuple[Sequence[Column], Sequence[str], str]] = {
    "agents": (
        agents._COLUMNS,
        [
            "developer-1",
            "developer",
            "git python",
            "opencode",
            "build-host-1",
            "working",
            "0.25",
            "100% of 12",
            "1a2b3c4d",
            "12 min ago",
        ],
        "ID KIND STATE TASK",
    ),
    "tasks": (
        tasks._COLUMNS,
        ("1a2b3c4d", "queued (unroutable)", "developer+python", "normal", "developer-1", "1", "12 min ago", TEXT),
        "ID STATE AGENT TITLE",
    ),
    "dead": (dead_letters._DEAD_COLUMNS, ("1a2b3c4d", "developer", "3", "12 min ago", TEXT, TEXT), "ID DIED WHY"),
    "messages": (
        messages._COLUMNS,
        ("1a2b3c4d", "developer-1", "orchestrator-1", "acknowledged", "12 min ago", TEXT),
        "MESSAGE FROM TO STATE TEXT",
    ),
    "refused": (
        messages._REFUSED_COLUMNS,
        ("12 min ago", "developer-1", "orchestrator-1", "refused", "1a2b3c4d", TEXT),
        "WHEN FROM TO WHY",
    ),
    "nodes": (
        nodes._COLUMNS,
        ("build-host-1", "active", "10.0.0.17", "gpu", "3 of 16", "16", "0.5", "12.0 of 31.2", "0.1.0", "2 s ago"),
        "NODE STATE LABELS AGENTS",
    ),
    "kept": (nodes._KEPT_COLUMNS, ("developer-1", "developer", "claude", "", "quarantined", TEXT), "AGENT WORKER WHY"),
    "checkins": (
        checkins._COLUMNS,
        ("1a2b3c4d5e6f", "developer-1", "active", "2026-11-29 09:00:00 CET", "every 30 min", "3", "operator", TEXT),
        "CHECKIN FOR STATE NEXT NOTE",
    ),
    "fires": (
        checkins._FIRE_COLUMNS,
        ("2026-11-29 09:00:00 CET", "sent", "0.1 s", f"developer-1: message {'0' * 32} read", ""),
        "TIME OUTCOME EVIDENCE",
    ),
    "notes": (collaboration._NOTE_COLUMNS, ("2 h ago", "developer-1", "build", TEXT), "NOTED BY FACT"),
    "claims": (
        collaboration._CLAIM_COLUMNS,
        ("/srv/projects/app/frontend", "developer-1", "1a2b3c4d", "2026-11-29 09:00:00 CET", "3 min ago"),
        "RESOURCE BY TASK",
    ),
    "budgets": (
        fleet._BUDGET_COLUMNS,
        ("anthropic-team", "tokens per day", "12,345,678", "20,000,000", "2026-11-29 09:00 CET", ""),
        "ACCOUNT BUDGET USED LIMIT UNTIL",
    ),
    "git": (
        fleet._TREE_COLUMNS,
        f"developer-1|developer|torch/fix-the-login-of-the-old-console|3 since 2 h ago|1a2b3c4d 2 h ago: {TEXT}|v1.2.3"
        "|/srv/app/worktrees/trees/fix-the-login-page|2 min ago".split("|"),
        "AGENT BRANCH UNCOMMITTED LAST COMMIT",
    ),
}


def printed(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, *, terminal: bool = False) -> str:
    """The table as a terminal of this width shows it."""
    layout = lay_out(columns, rows, width)
    assert layout
    out = io.StringIO()
    colours: Any = "standard" if terminal else None
    console = Console(file=out, width=width, force_terminal=terminal, highlight=False, color_system=colours)
    console.print(side_by_side(columns, rows, layout))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", LISTS)
def test_each_list_fits_a_terminal_and_keeps_what_matters(name: str, width: int) -> None:
    columns, row, kept = LISTS[name]
    shown = printed(columns, [row], width)
    lines = shown.splitlines()
    assert max(map(tables.cell_len, lines)) <= width
    assert [heading for heading in kept.split() if heading not in lines[0]] == []
    whole = [cell for column, cell in zip(columns, row, strict=True) if column.heading in lines[0].split("  ")]
    assert whole[0] in lines[1]  # what identifies the row


def test_more_room_shows_more_and_texts_take_what_is_left() -> None:
    widths = [layout.widths for width in (60, 80, 100) if (layout := lay_out(COLUMNS, ROWS, width))]
    assert [sorted(one) for one in widths] == [[0, 1, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert [sum(one.values()) + 2 * (len(one) - 1) for one in widths] == [60, 80, 100]


def test_an_id_is_never_broken_and_a_long_text_is_cut() -> None:
    lines = [line.rstrip() for line in printed(COLUMNS, ROWS, 70).splitlines()]
    assert lines[1].startswith("developer-1")
    assert lines[1].endswith("…")
    assert lines[2].startswith("a-developer-with-a-long-name  ready")
    assert len(lines) == 3


def test_what_is_left_out_is_named_and_goes_in_its_order() -> None:
    assert (layout := lay_out(COLUMNS, ROWS, 73))
    assert layout.left_out == ("LOAD",)
    assert (layout := lay_out(COLUMNS, ROWS, 60))
    assert layout.left_out == ("LOAD", "FOR")


def test_a_text_to_be_read_to_its_end_goes_on_in_the_next_line() -> None:
    columns = (Column("ID"), wrapped("WHY", least=10))
    lines = printed(columns, [("qa-1", "its program ended five times within a minute")], 30).splitlines()
    assert [line.strip() for line in lines] == ["ID    WHY", "qa-1  its program ended five", "times within a minute"]


def test_a_column_that_says_nothing_takes_no_room() -> None:
    columns = (Column("ID"), Column("PRIORITY", usual="normal"), Column("NOTE"))
    assert (layout := lay_out(columns, [("a", "normal", ""), ("b", "normal", "")], 80))
    assert sorted(layout.widths) == [0]
    assert (layout := lay_out(columns, [("a", "high", ""), ("b", "normal", "x")], 80))
    assert sorted(layout.widths) == [0, 1, 2]


def test_ids_too_long_for_the_terminal_stand_below_each_other() -> None:
    rows = [("i" * 50, "ready", "0", "any", "echo"), ("j" * 50, "dead", "", "", "")]
    assert lay_out(COLUMNS, rows, 60) is None
    lines = [line.plain for line in one_below_the_other(COLUMNS, rows)]
    assert lines[:5] == ["ID      " + "i" * 50, "STATE   ready", "LOAD    0", "FOR     any", "PROMPT  echo"]
    assert lines[5:] == ["", "ID      " + "j" * 50, "STATE   dead"]


def test_a_pipe_gets_every_column_whole() -> None:
    lines = as_lines(COLUMNS, [*ROWS, ("x", "ready", "", "", "one\ntwo")])
    assert TEXT in lines[1]
    assert [lines[0].index(column.heading) for column in COLUMNS] == [0, 30, 39, 45, 63]
    assert lines[4] == " " * 63 + "two"


def test_states_are_in_colour_and_nothing_else_is() -> None:
    shown = printed(COLUMNS, ROWS, 100, terminal=True)
    assert re.findall(r"\x1b\[[\d;]+m(?!\x1b)(.+?)\x1b\[0m", shown.split("\n", 1)[1]) == ["working", "ready  "]


def test_every_coloured_word_is_a_state_and_every_state_of_a_task_but_queued_has_a_colour() -> None:
    states = {
        str(one)
        for kind in (TaskState, AgentState, AgentStatus, MessageState, CheckinState, SlotOutcome, KeptState, SpawnState)
        for one in kind
    } | {"unroutable", "gone", "paused", "stopped", "drained", "retiring", "quarantined"}
    words = [word for known in tables.STYLES.values() for word in known.split()]
    assert [word for word in words if word not in states] == []
    assert len(set(words)) == len(words)
    assert {str(one) for one in TaskState if not tables.style_of(one)} <= {"queued", "pending"}
    assert tables.style_of("queued (unroutable)") == tables.style_of("failed")
    assert tables.style_of("ready, paused by operator") == tables.style_of("parked")


def test_a_long_field_goes_on_below_itself_without_a_broken_word(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "dev-1 asks: May I?: 'torch-tasks answer 1a2b3c4d 1'\n" + "word " * 30 + "/a/path/" + "x" * 90
    assert output.beside("one\ntwo", 4) == "one\n    two"
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setattr(output, "terminal_width", lambda: 80)
    lines = output.beside(text, 20).split("\n")
    assert lines[0] == "dev-1 asks: May I?: 'torch-tasks answer 1a2b3c4d 1'"
    assert lines[1] == " " * 20 + " ".join(["word"] * 12)
    assert lines[-1] == " " * 20 + "/a/path/" + "x" * 90
