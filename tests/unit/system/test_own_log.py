"""A log that is full is put aside, while others write to it and read it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from waiting import until

from torch_tasks.machine.log_files import LogFiles
from torch_tasks.settings import Settings
from torch_tasks.system import own_log
from torch_tasks.system.log_files_aside import end_of_log, put_aside
from torch_tasks.system.own_log import LogFile, begin_log

LINE = "[2026-11-29 12:00:00,000: INFO] "
THREADS, EACH = 4, 500


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "logs").mkdir()
    return Settings(state_dir=tmp_path, log_limit_bytes=4000, log_files_kept=1000)


@pytest.fixture
def path(settings: Settings) -> Path:
    return settings.state.logs / "node.log"


@pytest.fixture
def logger(path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A logger of a process whose output goes to the file."""
    with path.open("a", buffering=1) as output:
        monkeypatch.setattr(own_log, "_OUTPUTS", (output.fileno(),))
        logger = logging.Logger("l")
        handler = logging.StreamHandler(output)
        handler.setFormatter(logging.Formatter(own_log.FOR_PEOPLE))
        logger.addHandler(handler)
        begin_log(logger, settings)
        begin_log(logger, settings)
        yield logger


def files_of(path: Path) -> list[Path]:
    return [file for _, file in sorted(put_aside(path), reverse=True)] + [path]


def test_no_line_is_lost_or_doubled_at_the_turn_and_a_reader_follows(path: Path, logger: logging.Logger) -> None:
    read = LogFiles({"node": path})
    seen: list[str] = []
    is_over = threading.Event()

    def follow() -> None:
        while not is_over.is_set():
            seen.extend(entry.text.rpartition("] ")[2] for entry in read.new())
            time.sleep(0.02)  # as one who follows does

    def write(thread: int) -> None:
        for number in range(EACH):
            logger.info("%d %d", thread, number)

    reader = threading.Thread(target=follow, daemon=True)
    writers = [threading.Thread(target=write, args=(thread,), daemon=True) for thread in range(THREADS)]
    for one in (reader, *writers):
        one.start()
    for one in writers:
        one.join(60)
    until(lambda: len(seen) >= THREADS * EACH, "all of it is read", 20)
    is_over.set()
    reader.join(20)
    written = [line.rpartition("] ")[2] for file in files_of(path) for line in file.read_text().splitlines()]
    assert len(files_of(path)) > 10
    assert sorted(seen) == sorted(written)
    for thread in range(THREADS):
        assert [line for line in written if line.startswith(f"{thread} ")] == [f"{thread} {n}" for n in range(EACH)]


def test_no_file_is_larger_than_allowed_and_only_so_many_are_kept(path: Path, settings: Settings) -> None:
    file = LogFile(path, settings.model_copy(update={"log_files_kept": 2}))
    for content in ("first", "second", "third", "fourth"):
        path.write_text(f"{content}{'.' * 4000}\n")
        file.put_aside_if_full()
    assert [one.read_text()[:5] for one in sorted(path.parent.glob("node.log*"))] == ["fourt", "third"]
    path.write_text("small")
    file.put_aside_if_full()
    assert path.read_text() == "small"
    path.write_text("." * 4000)
    LogFile(path, settings.model_copy(update={"log_files_kept": 0})).put_aside_if_full()
    assert not list(path.parent.glob("node.log*"))


def test_a_process_whose_log_another_one_put_aside_goes_on_in_the_new_file(
    path: Path, settings: Settings, logger: logging.Logger
) -> None:
    logger.info("x" * 3900)
    with path.open("a") as other:
        other.write("y" * 200 + "\n")
    LogFile(path, settings).put_aside_if_full()
    path.write_text("of the other one\n")
    logger.info("before it looks")
    logger.info("after")
    assert path.read_text().startswith("of the other one\n")
    assert path.read_text().endswith("after\n")
    assert "before it looks" in path.with_name("node.log.1").read_text()


def test_a_log_that_cannot_be_put_aside_grows_and_says_so_once(
    path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(LogFile, "put_aside_if_full", refuse)
    for _ in range(3):
        logger.info("x" * 3000)
    assert caplog.text.count(f"{path} is full and cannot be put aside: no space left") == 1
    assert path.stat().st_size > 9000


def test_output_that_goes_elsewhere_is_nobodys_file(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open("w") as elsewhere:
        monkeypatch.setattr(own_log, "_OUTPUTS", (elsewhere.fileno(),))
        assert LogFile.of_output(settings) is None


# ── read together ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_put_aside_is_read_from_the_oldest_on_and_of_it_no_more_than_is_wanted(path: Path) -> None:
    for name, text in (("node.log.10", "a"), ("node.log.2", "b"), ("node.log.1", "c"), ("node.log", "d")):
        path.with_name(name).write_text("".join(f"{LINE}{text}{number}\n" for number in range(3)))
    path.with_name("node.log.old").write_text("not one of them\n")
    assert [entry.text[-2:] for entry in LogFiles({"node": path}).new()] == [
        f"{text}{number}" for text in "abcd" for number in range(3)
    ]
    assert len(LogFiles({"node": path}, lines=4).new()) == 6


def test_several_turns_between_two_looks_leave_nothing_out(path: Path, settings: Settings) -> None:
    read = LogFiles({"node": path})
    path.write_text(f"{LINE}0\n")
    assert len(read.new()) == 1
    for number in range(1, 6):
        with path.open("a") as file:
            file.write(f"{LINE}{number}{' ' * 4000}\n")
        LogFile(path, settings).put_aside_if_full()
    path.write_text(f"{LINE}6\n")
    assert [entry.text.rstrip()[-1] for entry in read.new()] == ["1", "2", "3", "4", "5", "6"]
    assert read.new() == []


FOREIGN = [
    ("9734:M 30 Nov 2026 02:33:42.089 # Low on memory", ("valkey", "warning", "02:33:42.089", "Low on memory")),
    ("W1130 02:44:18.596814   23193 listener.cc:221] Could not", ("dragonfly", "warning", "02:44:18.596", "Could not")),
    ("[W 261130 02:44:18 command:168] Slow", ("flower", "warning", "02:44:18.000", "Slow")),
    ("[2026-11-30 02:44:18,125: ERROR/MainProcess] Gone\n  where", ("torch", "error", "02:44:18.125", "Gone\n  where")),
    ("Usage: of a command", ("output", "info", "", "Usage: of a command")),
]


@pytest.mark.parametrize(("text", "said"), FOREIGN)
def test_a_line_that_is_none_of_torchs_is_one_event_with_its_source(
    path: Path, text: str, said: tuple[str, str, str, str]
) -> None:
    path.write_text(f"{text}\n")
    (entry,) = LogFiles({"agent-dev-1": path}).new()
    event = json.loads(entry.for_programs())
    moment = f"{datetime.fromisoformat(event['at']).astimezone():%H:%M:%S.%f}"[:-3]
    assert (event["source"], event["level"], event["message"]) == (said[0], said[1], said[3])
    assert said[2] in moment
    assert (event["process"], event["agent"]) == ("agent-dev-1", "dev-1")
    assert entry.for_people() == text.split("\n")


def test_an_event_is_read_by_people_as_a_line(path: Path) -> None:
    event = {
        "at": "2026-11-30T02:44:18.125+00:00",
        "level": "error",
        "message": "it\nfailed",
        "task": "t-1",
        "error": "E",
    }
    path.write_text(f"{json.dumps(event)}\nprinted by a library\n")
    first, second = LogFiles({"node": path}).new()
    assert first.for_people() == [f"[{first.at}: ERROR] it", "    failed (task t-1)", "    E"]
    assert json.loads(first.for_programs()) == event
    assert second.for_people() == ["printed by a library"]


def test_the_end_of_a_log_that_was_just_put_aside_is_in_both_files(path: Path) -> None:
    path.with_name("node.log.1").write_text("an old line\nError: it broke\n")
    path.write_text("a new line\n")
    assert end_of_log(path, 1000) == b"an old line\nError: it broke\na new line\n"
    assert end_of_log(path, 20) == b"it broke\na new line\n"
    assert end_of_log(path, 5) == b"line\n"
    begun = path.with_name("node.log.1").stat().st_ino, len("an old line\n")
    assert end_of_log(path, 1000, begun) == b"Error: it broke\na new line\n"
    assert end_of_log(path, 1000, (path.stat().st_ino, 2)) == b"new line\n"
    path.unlink()
    assert end_of_log(path.with_name("other.log"), 1000) == b""


EARLY = """
import logging
from torch_tasks.settings import settings
from torch_tasks.system.own_log import begin_log_early
begin_log_early(settings())
logging.getLogger("torch_tasks.x").warning("early")
from torch_tasks.app import app
app.log.setup(loglevel="INFO")
logging.getLogger("torch_tasks.x").warning("late")
"""


def test_what_a_worker_logs_before_celery_sets_its_log_up_has_torchs_form_and_comes_once(tmp_path: Path) -> None:
    env = {**os.environ, "TORCH_STATE_DIR": str(tmp_path), "TORCH_LOG_FORMAT": "json"}
    said = subprocess.run([sys.executable, "-c", EARLY], env=env, capture_output=True, text=True, check=True).stderr
    assert [json.loads(line)["message"] for line in said.splitlines()] == ["early", "late"]
