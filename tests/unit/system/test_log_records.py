"""Log lines for programs, and the logs of a machine read together."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from waiting import until

from torch_tasks.machine.log_files import LogFiles
from torch_tasks.system import log_records
from torch_tasks.system.log_records import JsonLine, log_as, logging_about, without_result
from torch_tasks.system.terminal import make_log_visible

SECRET = "sk-ant-api03-" + "a" * 80


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> tuple[logging.Logger, io.StringIO]:
    """A log for programs, and what gets into it."""
    monkeypatch.setattr(log_records, "_process", {})
    log, out = logging.Logger("a.log"), io.StringIO()
    log.addHandler(logging.StreamHandler(out))
    make_log_visible(log, "json")
    return log, out


def test_each_line_is_an_object_that_says_whose_it_is_and_what_it_is_about(
    written: tuple[logging.Logger, io.StringIO],
) -> None:
    log, out = written
    log_as(node="n", agent="dev-1", incarnation=3)
    with logging_about(task="t-1", trace="f" * 32, caller="operator"):
        log.warning("task %s waits\nfor long", "t-1")
    log.info("afterwards")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert datetime.fromisoformat(first.pop("at")).tzinfo is not None
    first.pop("pid")
    assert first == {
        "level": "warning", "message": "task t-1 waits\nfor long", "logger": "a.log", "node": "n", "agent": "dev-1",
        "incarnation": 3, "task": "t-1", "trace": "f" * 32, "caller": "operator",
    }  # fmt: skip
    assert "task" not in second


def test_an_error_has_its_traceback_and_no_secret_is_written(written: tuple[logging.Logger, io.StringIO]) -> None:
    log, out = written
    try:
        raise ValueError(f"with \x1b]52 and {SECRET}")
    except ValueError:
        log.exception("it failed with %s", SECRET)
    (line,) = out.getvalue().splitlines()
    assert "ValueError: with" in json.loads(line)["error"]
    assert SECRET not in line
    assert "\x1b" not in line


def test_a_task_that_succeeded_is_logged_without_its_result() -> None:
    log, out = logging.Logger("celery"), io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLine())
    log.addHandler(handler)
    log.addFilter(without_result)
    log.info("Task %(name)s succeeded: %(return_value)s", {"name": "torch.run", "return_value": "{'answer': 'long'}"})
    assert json.loads(out.getvalue())["message"] == "Task torch.run succeeded: its result is in its record"


# ── read together ────────────────────────────────────────────────────────────────────────────────────────────────


def people(second: int, text: str) -> str:
    return f"[2026-11-29 12:00:{second:02},000: INFO/MainProcess] {text}\n"


def program(second: int, **fields: object) -> str:
    at = datetime(2026, 11, 29, 12, 0, second).astimezone().astimezone(UTC)
    return json.dumps({"at": at.isoformat(timespec="milliseconds"), **fields}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "node.log").write_text(people(1, "dev-1 starts") + people(4, "task t-1 waits") + "    for long\n")
    (tmp_path / "agent-dev-1.log").write_text(program(2, message="taken", task="t-1") + program(5, message="beat"))
    return tmp_path


def read_in(folder: Path) -> LogFiles:
    return LogFiles({name: folder / f"{name}.log" for name in ("node", "agent-dev-1")})


def test_both_forms_are_read_in_the_order_of_their_times(folder: Path) -> None:
    entries = read_in(folder).new()
    assert [entry.process for entry in entries] == ["node", "agent-dev-1", "node", "agent-dev-1"]
    assert entries[2].text.endswith("task t-1 waits\n    for long")


def test_what_concerns_a_task_or_an_agent_is_found_in_all_of_them(folder: Path) -> None:
    entries = read_in(folder).new()
    assert [entry.at[-6:] for entry in entries if entry.concerns(task="t-1", agent=None)] == ["02,000", "04,000"]
    assert [entry.at[-6:] for entry in entries if entry.concerns(task=None, agent="dev-1")] == [
        "01,000", "02,000", "05,000"
    ]  # fmt: skip
    assert not [entry for entry in entries if entry.concerns(task=None, agent="dev")]


def test_only_whole_lines_are_read_and_each_once_also_of_a_file_that_was_replaced(folder: Path) -> None:
    read = read_in(folder)
    read.new()
    node = folder / "node.log"
    with node.open("a") as file:
        file.write(people(6, "whole") + people(7, "half")[:-3])
    assert [entry.text[-5:] for entry in read.new()] == ["whole"]
    node.rename(folder / "node.log.1")
    node.write_text(people(8, "another file"))
    assert [entry.text[-12:] for entry in read.new()] == ["another file"]
    until(lambda: [entry.text[-2:] for entry in read.new()] == ["ha"], "what nobody went on with is read")
    assert read.new() == []


def test_a_log_that_is_not_there_yet_is_read_when_it_is(tmp_path: Path) -> None:
    read = LogFiles({"node": tmp_path / "node.log"})
    assert read.new() == []
    (tmp_path / "node.log").write_text(people(1, "now"))
    assert len(read.new()) == 1
