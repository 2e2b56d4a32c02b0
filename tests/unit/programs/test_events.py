"""What hooks report, and what it says of a task's turn."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from torch_tasks.machine.agent_folder import DONE, report
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question
from torch_tasks.model.usage import Usage
from torch_tasks.workers.programs.events import REPORT, EventKind, HookFolder, JoinedLogs, ProgramEvent
from torch_tasks.workers.programs.prompt import footer
from torch_tasks.workers.programs.turn import Turn, read_turn


def translated(name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
    """Each event means work, with its text."""
    return ProgramEvent(EventKind.WORKING, text=str(given.get("text", ""))) if name != "Unknown" else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "events").mkdir()
    os.mkfifo(tmp_path / "bell")
    return tmp_path


def run_hook(folder: Path, name: str, *more: str, given: str = "", events: str = "events") -> None:
    argv = ["sh", str(REPORT), str(folder / events), str(folder / "bell"), name, *more]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_hook_reports_what_it_was_given_and_rings_the_bell(folder: Path) -> None:
    bell = os.open(folder / "bell", os.O_RDWR | os.O_NONBLOCK)
    text = 'quotes " \\ $HOME `id` %s\nand é 🚒'
    log = HookFolder(folder / "events", translated)
    mark = log.mark()
    run_hook(folder, "Stop", given=json.dumps({"text": text}))
    assert os.read(bell, 10) == b"x"
    os.close(bell)
    (event,) = log.since(mark)
    assert (event.text, event.origin) == (text, "hook Stop")
    assert abs((datetime.now(UTC) - event.at).total_seconds()) < 60
    run_hook(folder, "Notify", json.dumps({"text": "as an argument"}))
    assert [event.text for event in log.since(mark)] == [text, "as an argument"]
    assert log.since(log.mark()) == []
    assert len(log.since("")) == 2


def test_a_clock_that_is_set_back_hides_no_event(folder: Path) -> None:
    log = HookFolder(folder / "events", translated)
    (folder / "events" / "9999999999999-0000000001-Old.json").write_text('{"name":"Old","at":1,"input":{}}')
    mark = log.mark()
    run_hook(folder, "Stop", given="{}")
    assert [event.origin for event in log.since(mark)] == ["hook Stop"]


def test_a_hook_that_cannot_report_says_nothing_and_leaves_nothing(folder: Path) -> None:
    run_hook(folder, "Stop", given="{}", events="missing")
    (folder / "bell").unlink()
    run_hook(folder, "Unknown", given="not JSON {")
    assert HookFolder(folder / "events", translated).since("") == []
    assert not list((folder / "events").glob(".*"))


def test_the_agents_own_report_is_an_event_too(folder: Path) -> None:
    report(folder, DONE, "t-1", "it is done", "r-1")
    report(folder, DONE, "t-1", "it is done", "r-1")  # once
    log = JoinedLogs(HookFolder(folder / "events", lambda *_: None), HookFolder(folder / "none", translated))
    assert [(event.kind, event.task, event.text) for event in log.since("")] == [(EventKind.DONE, "t-1", "it is done")]
    assert log.since(log.mark()) == []


def turn(*events: ProgramEvent) -> Turn:
    return read_turn(events, "task t-1")


def accepted(task: str = "t-1") -> ProgramEvent:
    return ProgramEvent(EventKind.ACCEPTED, text=f"words\n\n{footer(f'task {task}', '…')}", origin="hook Prompt")


STOPPED = ProgramEvent(EventKind.STOPPED, text="the answer", origin="hook Stop")
ASKED = ProgramEvent(EventKind.QUESTION, question=Question(text="May I?"), origin="hook Ask")


def state(turn: Turn) -> AgentState | None:
    return turn.reading.state if turn.reading else None


def test_only_the_turn_of_our_prompt_is_ours() -> None:
    assert turn(accepted("t-2"), STOPPED).over is None
    assert state(turn(accepted("t-2"), STOPPED)) is None
    ours = turn(accepted("t-2"), ProgramEvent(EventKind.STOPPED, text="other"), accepted(), STOPPED, accepted("t-3"))
    assert ours.over == STOPPED


def test_a_turn_is_followed_through_what_happens_in_it() -> None:
    assert state(turn(accepted())) is AgentState.WORKING
    assert state(turn(accepted(), ASKED)) is AgentState.WAITING
    assert state(turn(accepted(), ASKED, ProgramEvent(EventKind.RESOLVED))) is AgentState.WORKING
    assert state(turn(accepted(), ASKED, ProgramEvent(EventKind.WORKING))) is AgentState.WORKING
    assert state(turn(accepted(), ProgramEvent(EventKind.COMPACTING))) is AgentState.COMPACTING
    assert (
        state(turn(accepted(), ProgramEvent(EventKind.COMPACTING), ProgramEvent(EventKind.COMPACTED)))
        is AgentState.WORKING
    )
    limited = ProgramEvent(EventKind.FAILED, error="limit")
    assert state(turn(accepted(), limited)) is AgentState.LIMITED
    assert state(turn(accepted(), limited, ProgramEvent(EventKind.WORKING))) is AgentState.WORKING
    assert state(turn(accepted(), STOPPED)) is AgentState.READY


def test_reports_of_another_task_are_not_ours() -> None:
    other = ProgramEvent(EventKind.DONE, task="t-2", text="no")
    own = ProgramEvent(EventKind.DONE, task="t-1", text="yes")
    assert turn(accepted(), other).report is None
    assert turn(accepted(), own, other).report == own


def test_what_the_requests_cost_is_added_up() -> None:
    one = ProgramEvent(EventKind.USAGE, usage=Usage(input_tokens=10, output_tokens=1))
    two = ProgramEvent(EventKind.USAGE, usage=Usage(input_tokens=20, output_tokens=2, cost_usd=0.5))
    assert turn(accepted(), one, STOPPED, two).usage == Usage(input_tokens=30, output_tokens=3, cost_usd=0.5)


def test_a_prompt_that_the_screen_showed_accepted_begins_the_turn() -> None:
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    shown = ProgramEvent(EventKind.ACCEPTED, at=at)
    before = ProgramEvent(EventKind.STOPPED, text="another's", at=at.replace(hour=11))
    after = ProgramEvent(EventKind.STOPPED, text="ours", at=at.replace(hour=13))
    assert read_turn([before, after], "task t-1", shown).over == after
