"""What the ledger keeps when its file is damaged or its writers are killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from torch_tasks.errors import LedgerUnusable, StateFolderUnusable
from torch_tasks.store.ledger import Ledger, Row, RowState

SECONDS = 60
ACCOUNT = {"state": "succeeded", "queue": "q", "revision": "4", "created_at": "1", "spec": "{}"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger(path, "here:6379/0")


def rows(ledger: Ledger) -> dict[str, RowState]:
    """The open rows, in order."""
    return {row.task_id: row.state for row in ledger.open_after(0, 100_000)}


def row_of(ledger: Ledger, task_id: str) -> Row:
    return next(row for row in ledger.open_after(0, 100_000) if row.task_id == task_id)


def other_process(path: Path, statements: str) -> subprocess.Popen[str]:
    """A Python process with the same ledger."""
    program = (
        "import os, signal, sys, threading\nfrom pathlib import Path\n"
        "from torch_tasks.store.ledger import Ledger, RowState\n"
        f"ledger = Ledger(Path({str(path)!r}), 'here:6379/0')\n{statements}"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


# ── a task's way through it ──────────────────────────────────────────────────────────────────────────────────────


def test_a_row_is_written_published_and_closed(ledger: Ledger) -> None:
    assert ledger.write("a", "q", "the message") is None
    assert ledger.state("a") is RowState.WRITTEN
    ledger.note("a", RowState.PUBLISHED)
    assert ledger.message(row_of(ledger, "a")) == "the message"
    ledger.close("a", ACCOUNT)
    assert ledger.state("a") is RowState.CLOSED
    assert rows(ledger) == {}
    [closed] = ledger.closed_after(0, 10)
    assert (closed.task_id, closed.revision, ledger.account(closed)) == ("a", 4, ACCOUNT)


def test_the_same_id_twice_is_one_row_and_keeps_what_was_noted_first(ledger: Ledger) -> None:
    ledger.write("a", "q", "first")
    ledger.note("a", RowState.PUBLISHED)
    assert ledger.write("a", "elsewhere", "second") is RowState.PUBLISHED
    assert (row_of(ledger, "a").queue, ledger.message(row_of(ledger, "a"))) == ("q", "first")


def test_what_has_ended_stays_ended_when_its_id_is_used_again(ledger: Ledger) -> None:
    ledger.write("a", "q", "message")
    ledger.close("a", ACCOUNT)
    assert ledger.write("a", "q", "message") is RowState.CLOSED
    ledger.note("a", RowState.PUBLISHED)
    ledger.take_back("a", RowState.CLOSED, forgotten=True)
    assert ledger.state("a") is RowState.CLOSED


def test_a_failed_publishing_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    ledger.take_back("a", ledger.write("a", "q", "message"), forgotten=True)
    assert ledger.state("a") is None
    ledger.write("b", "q", "message")
    ledger.note("b", RowState.PUBLISHED)
    ledger.take_back("b", ledger.write("b", "q", "message"), forgotten=False)
    assert ledger.state("b") is RowState.PUBLISHED


def test_what_the_broker_was_not_made_to_forget_is_remembered_as_such(ledger: Ledger) -> None:
    ledger.take_back("a", ledger.write("a", "q", "message"), forgotten=False)
    assert [row.state for row in ledger.unsent()] == [RowState.WITHDRAWN]


def test_the_later_account_of_an_end_wins(ledger: Ledger) -> None:
    ledger.write("a", "q", "message")
    for revision in ("4", "6", "5"):
        ledger.close("a", ACCOUNT | {"revision": revision})
    assert [row.revision for row in ledger.closed_after(0, 10)] == [6]


def test_the_end_of_a_task_from_elsewhere_can_be_kept_too(ledger: Ledger) -> None:
    ledger.close("stranger", ACCOUNT, flushed=True)
    assert ledger.state("stranger") is RowState.CLOSED


def test_rows_come_in_the_order_in_which_they_were_accepted(ledger: Ledger) -> None:
    names = [f"t{number}" for number in (5, 3, 9, 1, 7)]
    for name in names:
        ledger.write(name, "q", "message")
        ledger.note(name, RowState.SPOOLED)
    assert [row.task_id for row in ledger.unsent()] == names
    two = ledger.open_after(0, 2)
    assert [row.task_id for row in two + ledger.open_after(two[-1].number, 10)] == names


def test_a_broker_sees_its_own_rows_alone(ledger: Ledger, path: Path) -> None:
    other = Ledger(path, "there:6379/0")
    ledger.write("a", "q", "message")
    other.write("a", "q", "another message")
    other.note("a", RowState.SPOOLED)
    assert (ledger.state("a"), other.state("a")) == (RowState.WRITTEN, RowState.SPOOLED)
    assert (ledger.name == other.name, ledger.name) == (False, Ledger(path, "here:6379/0").name)
    ledger.reconciled()
    assert ledger.summary().reconciled
    assert other.summary().reconciled is None
    assert ledger.summary()[:3] == (1, 0, 1)


# ── who publishes a row ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_row_that_was_read_twice_is_claimed_once(ledger: Ledger) -> None:
    ledger.write("a", "q", "message")
    ledger.note("a", RowState.SPOOLED)
    seen = row_of(ledger, "a")
    assert [ledger.claim(seen), ledger.claim(seen)] == [True, False]
    ledger.note("a", RowState.PUBLISHED)
    assert not ledger.claim(seen)


def test_a_row_is_in_its_publishers_hands_while_that_process_lives(path: Path, ledger: Ledger) -> None:
    publisher = other_process(path, "ledger.write('a', 'q', 'm'); print('written', flush=True); signal.pause()")
    assert publisher.stdout is not None
    assert publisher.stdout.readline() == "written\n"
    time.sleep(1.1)  # older than BRIEF_SECONDS
    assert row_of(ledger, "a").in_hands
    assert ledger.unsent() == []
    publisher.kill()
    publisher.wait(SECONDS)
    publisher.stdout.close()
    assert not row_of(ledger, "a").in_hands
    assert [row.task_id for row in ledger.unsent()] == ["a"]


def test_the_number_of_a_dead_publisher_may_be_anothers_by_now(ledger: Ledger) -> None:
    ledger.write("a", "q", "message")
    row = row_of(ledger, "a")._replace(touched=time.time() - 5)
    assert row.in_hands
    assert not row._replace(publisher=f"{os.getpid()}:1.0").in_hands


def test_publishing_lasts_no_longer_than_a_minute(ledger: Ledger) -> None:
    ledger.write("a", "q", "message")
    assert not row_of(ledger, "a")._replace(touched=time.time() - 61).in_hands
    assert not row_of(ledger, "a")._replace(touched=time.time() + 3600).in_hands, "the clock was set back"


# ── threads, forks, processes ────────────────────────────────────────────────────────────────────────────────────


def test_many_threads_of_many_processes_write_at_once(path: Path, ledger: Ledger) -> None:
    statements = (
        "def some(t):\n"
        "    for n in range(25):\n"
        "        ledger.write(f'{os.getpid()}-{t}-{n}', 'q', 'm'); ledger.note(f'{os.getpid()}-{t}-{n}', "
        "RowState.PUBLISHED)\n"
        "threads = [threading.Thread(target=some, args=(t,)) for t in range(4)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]; print('done')"
    )
    processes = [other_process(path, statements) for _ in range(4)]
    assert [process.communicate(timeout=SECONDS)[0] for process in processes] == ["done\n"] * 4
    assert list(rows(ledger).values()) == [RowState.PUBLISHED] * 400


def commits_of(ledger: Ledger) -> list[str]:
    """The flushed transactions of this process from now on, as SQLite itself names their end."""
    seen: list[str] = []
    with ledger._file.reading() as file:
        file.set_trace_callback(lambda statement: seen.append(statement) if statement == "COMMIT" else None)
    return seen


def at_once(threads: int, action: Callable[[int], None]) -> None:
    """Do this in so many threads, which begin together."""
    start = threading.Barrier(threads)

    def begin(number: int) -> None:
        start.wait(SECONDS)
        action(number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(begin, range(threads)))


def test_threads_that_write_at_once_share_flushes_and_each_row_is_there_when_it_is_told(
    path: Path, ledger: Ledger
) -> None:
    ledger.write("first", "q", "m")
    commits = commits_of(ledger)
    missing: list[str] = []

    def some(thread: int) -> None:
        with closing(sqlite3.connect(path)) as other:
            for number in range(50):
                ledger.write(name := f"{thread}-{number}", "q", name)
                if other.execute("SELECT count(*) FROM tasks WHERE task_id = ?", (name,)).fetchone() != (1,):
                    missing.append(name)

    at_once(8, some)
    assert missing == []
    assert len(rows(ledger)) == 401
    assert 0 < len(commits) < 300, "each task had a flush of its own"


def test_an_error_of_the_flush_reaches_each_thread_that_waits_for_it(path: Path, ledger: Ledger) -> None:
    ledger.write("first", "q", "m")
    failed: list[str] = []

    def refused(thread: int) -> None:
        with pytest.raises(LedgerUnusable, match="cannot use the ledger"):
            ledger.write(f"{thread}", "q", "m" * 100_000)
        failed.append(f"{thread}")

    with ledger._file.reading() as file:  # as a disk that is full does
        file.execute(f"PRAGMA max_page_count = {file.execute('PRAGMA page_count').fetchone()[0]}")
    ledger._file._lock.acquire()
    waiting = threading.Thread(target=at_once, args=(8, refused))
    waiting.start()
    deadline = time.monotonic() + SECONDS
    while len(ledger._file.flush._waiting) < 8 and time.monotonic() < deadline:
        time.sleep(0.001)
    ledger._file._lock.release()
    waiting.join(SECONDS)
    assert sorted(failed) == [str(number) for number in range(8)]
    assert list(rows(ledger)) == ["first"]
    assert ledger.write("next", "q", "m") is None, "the file is opened anew, and has room again"


def test_a_thread_that_is_interrupted_leaves_the_others_to_another(ledger: Ledger) -> None:
    has_begun, go_on = threading.Event(), threading.Event()

    def interrupted(_: sqlite3.Connection) -> None:
        has_begun.set()
        go_on.wait(SECONDS)
        raise KeyboardInterrupt

    ledger.write("first", "q", "m")
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(ledger._file.flush.do, interrupted)
        has_begun.wait(SECONDS)
        others = [pool.submit(ledger.write, f"{number}", "q", "m") for number in range(4)]
        go_on.set()
        assert isinstance(first.exception(SECONDS), KeyboardInterrupt)
        assert [other.result(SECONDS) for other in others] == [None] * 4
    assert sorted(rows(ledger)) == ["0", "1", "2", "3", "first"]


def test_a_fork_takes_no_part_of_the_file_along(path: Path, ledger: Ledger) -> None:
    stop = threading.Event()
    written = 0

    def busy() -> None:
        nonlocal written
        while not stop.is_set():
            ledger.write(f"parent-{written}", "q", "m")
            written += 1
            time.sleep(0.001)

    thread = threading.Thread(target=busy)
    thread.start()
    children = []
    for child in range(5):
        if (pid := os.fork()) == 0:
            try:
                for number in range(10):
                    ledger.write(f"child-{child}-{number}", "q", "m")
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    stop.set()
    thread.join(SECONDS)
    assert ends == [0] * 5
    assert len(rows(Ledger(path, "here:6379/0"))) == written + 50
    publishers = {row.publisher for row in ledger.open_after(0, 100_000)}
    assert len(publishers) == 6


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_loses_no_row_that_was_written(path: Path, ledger: Ledger, seed: int) -> None:
    writer = other_process(
        path, "n = 0\nwhile True:\n    ledger.write(f'{n}', 'q', 'm' * 5000)\n    print(n, flush=True); n += 1"
    )
    assert writer.stdout is not None
    written = [writer.stdout.readline().strip() for _ in range(30 + 17 * seed)]
    writer.send_signal(signal.SIGKILL)
    written += writer.communicate(timeout=SECONDS)[0].split()
    assert set(written) <= set(rows(ledger))
    ledger.write("after", "q", "m")
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.close()


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_on_the_disk_before_something_is_noted(path: Path, ledger: Ledger) -> None:
    assert not ledger.exists()
    assert not path.parent.exists()


def test_only_its_owner_may_read_the_file(path: Path, ledger: Ledger) -> None:
    before = os.umask(0)
    try:
        ledger.write("a", "q", "a secret")
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.glob("ledger.sqlite*")}
    assert modes == dict.fromkeys(("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"), 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    Ledger(path, "here:6379/0").write("b", "q", "another")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_message_of_a_mebibyte_comes_back_whole(ledger: Ledger) -> None:
    message = "日本 \0 '\"" * (1 << 17)
    ledger.write("a", "q", message)
    assert ledger.message(row_of(ledger, "a")) == message


def test_what_ended_long_ago_is_forgotten_and_its_room_used_again(path: Path, ledger: Ledger) -> None:
    def some(generation: int) -> None:
        for number in range(40):
            ledger.write(f"{generation}-{number}", "q", "m" * 100_000)
            ledger.close(f"{generation}-{number}", ACCOUNT | {"spec": "s" * 100_000})

    some(0)
    ledger.write("open", "q", "m")
    ledger.prune(keep_days=1)
    assert len(ledger.closed_after(0, 100)) == 40
    ledger.prune(keep_days=0)
    assert (ledger.closed_after(0, 100), list(rows(ledger))) == ([], ["open"])
    some(1)
    ledger.prune(keep_days=0)
    sizes = []
    for generation in range(2, 6):
        some(generation)
        ledger.prune(keep_days=0)
        sizes.append(sum(file.stat().st_size for file in path.parent.glob("ledger.sqlite*")))
    assert max(sizes) < 40e6
    assert sizes[-1] <= sizes[0]


@pytest.mark.parametrize("rubbish", [b"this is no ledger" * 400, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_named_and_one_put_away_is_begun_anew(path: Path, ledger: Ledger, rubbish: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(rubbish)
    for _ in range(2):
        with pytest.raises(LedgerUnusable, match=f"{path} is damaged: .*Move it away"):
            ledger.write("a", "q", "message")
    path.rename(path.with_suffix(".broken"))
    ledger.write("a", "q", "message")
    path.rename(path.with_suffix(".whole"))
    assert ledger.write("a", "q", "message") is None, "the row went into the file that was moved away"


def test_another_versions_file_is_left_alone(path: Path, ledger: Ledger) -> None:
    ledger.write("a", "q", "message")
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(LedgerUnusable, match="another version of Torch"):
        Ledger(path, "here:6379/0").write("b", "q", "message")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateFolderUnusable, match="file"):
        Ledger(tmp_path / "file" / "ledger.sqlite", "here:6379/0").write("a", "q", "message")


def test_a_full_disk_is_named_and_usable_again_when_there_is_room(small_disk: Path) -> None:
    ledger = Ledger(small_disk / "state" / "ledger.sqlite", "here:6379/0")
    ledger.write("before", "q", "message")
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with pytest.raises(LedgerUnusable, match="full"):
        ledger.write("a", "q", "m" * 200_000)
    assert ledger.state("a") is None
    ballast.unlink()
    ledger.write("a", "q", "m" * 200_000)
    assert list(rows(ledger)) == ["before", "a"]
