"""The log that only grows: what was acknowledged is there, and no change of it goes unseen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torch_tasks.errors import AuditNotWritten
from torch_tasks.system import chain, chain_check, chain_lines
from torch_tasks.system.chain import ChainedLog
from torch_tasks.system.chain_check import Fault
from torch_tasks.system.chain_lines import Head

SMALL = 600


def log_in(folder: Path, count: int = 0, file_bytes: int = 1 << 20) -> ChainedLog:
    log = ChainedLog(folder / "audit", file_bytes)
    for number in range(count):
        log.append({"what": "task.enqueue", "on": f"task {number}"})
    return log


def lines_of(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


def test_entries_are_numbered_and_carried_over_from_file_to_file(tmp_path: Path) -> None:
    log = log_in(tmp_path, 20, SMALL)
    assert len(log.files()) > 3
    assert [entry.number for entry in log.entries()] == list(range(1, 20 + len(log.files()) + 1))
    assert [entry.value["on"] for entry in log.entries() if "on" in entry.value] == [f"task {n}" for n in range(20)]
    assert log.verify() is None
    assert ChainedLog(log.folder, SMALL).append({"what": "x"}).number == 21 + len(log.files())
    assert {file.stat().st_mode & 0o777 for file in log.files()} == {0o600}


def test_a_log_without_entries_is_whole(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    assert (log.verify(), log.head(), list(log.entries())) == (None, None, [])


@pytest.mark.parametrize("text", ['"}\n', "ä€😀", "\ud800", "x" * 20_000, '","hash":"00"}'])
def test_any_text_can_be_kept(tmp_path: Path, text: str) -> None:
    log = log_in(tmp_path, 1)
    log.append({"what": text})
    log.append({"what": "after"})
    assert log.verify() is None
    assert len(list(log.entries())) == 4


def test_one_byte_changed_anywhere_is_found_at_its_entry(tmp_path: Path) -> None:
    log = log_in(tmp_path, 4)
    (file,) = log.files()
    whole = file.read_bytes()
    for place in range(len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        broken = log.verify()
        assert broken is not None, f"byte {place} {whole[place : place + 1]!r} was changed, and nobody saw it"
        assert broken.number == whole[:place].count(b"\n") + 1, f"byte {place}: {broken}"
    file.write_bytes(whole)
    assert log.verify() is None


def without(number: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: lines[: number - 1] + lines[number:]


def forged(line: bytes) -> bytes:
    found = json.loads(line)
    found["entry"]["on"] = "forged"
    return json.dumps(found, separators=(",", ":")).encode() + b"\n"


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], Fault, int]] = {
    "a line is cut out": (without(3), Fault.REMOVED, 3),
    "the first line is cut out": (without(1), Fault.REMOVED, 1),
    "two lines change places": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], Fault.REORDERED, 3),
    "a line stands twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], Fault.INSERTED, 4),
    "a line is made up": (lambda lines: [*lines[:2], forged(lines[2]), *lines[2:]], Fault.INSERTED, 3),
    "a line that is none stands between": (lambda lines: [*lines[:2], b"hello\n", *lines[2:]], Fault.INSERTED, 3),
    "an entry is rewritten": (lambda lines: [*lines[:2], forged(lines[2]), *lines[3:]], Fault.CHANGED, 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_done_to_the_lines_is_named(tmp_path: Path, change: str) -> None:
    log = log_in(tmp_path, 6)
    (file,) = log.files()
    act, fault, number = CHANGES[change]
    file.write_bytes(b"".join(act(lines_of(file))))
    broken = log.verify()
    assert broken is not None
    assert (broken.fault, broken.number) == (fault, number), str(broken)


def test_a_missing_file_and_the_cut_end_of_one_are_named(tmp_path: Path) -> None:
    log = log_in(tmp_path, 20, SMALL)
    first, second, third, *_ = log.files()
    kept = second.read_bytes()
    second.unlink()
    broken = log.verify()
    assert broken
    assert (broken.fault, broken.file, broken.line) == (Fault.REMOVED, second.name, 1)
    second.write_bytes(b"".join(kept.splitlines(keepends=True)[:-1]))
    broken = log.verify()
    assert broken
    assert (broken.fault, broken.file) == (Fault.CUT, third.name)
    second.write_bytes(b"")
    assert log.verify() is not None
    second.write_bytes(kept)
    assert log.verify() is None
    first.unlink()
    broken = log.verify()
    assert broken
    assert (broken.fault, broken.number) == (Fault.REMOVED, 1)


def test_only_what_changed_since_an_earlier_look_is_read_again(tmp_path: Path) -> None:
    log = log_in(tmp_path, 20, SMALL)
    files = log.files()
    known = log.check({}).files
    assert list(known) == [file.name for file in files]
    again = log.check(known)
    assert (again.broken, again.files, again.files_read) == (None, known, 0)
    head = log.append({"what": "x"})
    later = log.check(known)
    assert (later.broken, later.last, later.entries) == (None, head, head.number)
    assert 1 <= later.files_read <= 2  # the last one, and what follows it
    for file in files[:2]:
        os.utime(file, (1, 1))
    log.prune(time.time() - 60)
    pruned = log.check(later.files)
    assert (pruned.broken, pruned.files_read, next(iter(pruned.files))) == (None, 1, files[2].name)


@pytest.mark.parametrize("place", [0, 2, -1])
def test_a_byte_that_was_changed_after_an_earlier_look_is_found(tmp_path: Path, place: int) -> None:
    log = log_in(tmp_path, 20, SMALL)
    known, file = log.check({}).files, log.files()[place]
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(before.st_size // 2)
        byte = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    broken = log.check(known).broken
    assert broken
    assert broken.file == file.name


def test_a_file_that_was_taken_away_after_an_earlier_look_is_missed(tmp_path: Path) -> None:
    log = log_in(tmp_path, 20, SMALL)
    known, files = log.check({}).files, log.files()
    for file in (files[1], files[0]):
        text = file.read_bytes()
        file.unlink()
        broken = log.check(known).broken
        assert broken
        assert broken.fault is Fault.REMOVED
        file.write_bytes(text)
    assert log.check(known).broken is None


def test_writers_do_not_wait_while_all_files_but_the_last_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_in(tmp_path, 20, SMALL)
    written: list[Head] = []

    def read_and_written(file: Path) -> Any:
        if file != log.files()[-1] and len(written) < 3:
            written.append(log.append({"what": "x"}))
        return chain_lines.lines_of(file)

    monkeypatch.setattr(chain_check, "lines_of", read_and_written)
    found = log.check({})
    assert (found.broken, found.last) == (None, written[-1])
    assert len(written) == 3


def test_what_is_old_enough_is_pruned_and_the_log_says_so(tmp_path: Path) -> None:
    log = log_in(tmp_path, 20, SMALL)
    files = log.files()
    for file in files[:2]:
        os.utime(file, (1, 1))
    assert log.prune(time.time() - 60) == [file.name for file in files[:2]]
    assert log.verify() is None
    assert log.prune(time.time() - 60) == []
    log.files()[0].unlink()
    assert log.verify() is not None


def test_an_unfinished_line_is_no_alarm_and_the_next_entry_notes_it(tmp_path: Path) -> None:
    log = log_in(tmp_path, 3)
    (file,) = log.files()
    whole = file.read_bytes()
    last = lines_of(file)[-1]
    for length in range(1, len(last)):
        file.write_bytes(whole + last[:length])
        assert log.verify() is None
        head = log.append({"what": "after"})
        assert log.verify() is None
        *_, noted, after = log.entries()
        assert (noted.value["what"], noted.value["bytes"], after.number) == (chain.REPAIRED, length, head.number)
        assert file.read_bytes().startswith(whole)


def test_many_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    log = log_in(tmp_path, 1, 4000)
    words = "import sys\nfrom pathlib import Path\nfrom torch_tasks.system.chain import ChainedLog\n" + (
        "log = ChainedLog(Path(sys.argv[1]), 4000)\n[log.append({'by': sys.argv[2], 'i': i}) for i in range(150)]"
    )
    others = [subprocess.Popen([sys.executable, "-c", words, str(log.folder), name]) for name in "ab"]
    threads = [
        threading.Thread(target=lambda name=name: [log.append({"by": name, "i": i}) for i in range(100)])
        for name in ("t1", "t2")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.wait(60) for one in others] == [0, 0]
    assert log.verify() is None
    said = [(entry.value["by"], entry.value["i"]) for entry in log.entries() if "by" in entry.value]
    for name, count in (("a", 150), ("b", 150), ("t1", 100), ("t2", 100)):
        assert [i for by, i in said if by == name] == list(range(count))


def append_and_die(log: ChainedLog, kill_at: int, said: int) -> None:
    """Append six entries, saying each that is acknowledged, and be killed before the step with this number."""
    steps = 0
    really_write = os.write

    def dying(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == kill_at:
                if name == "write":  # in the midst of it
                    really_write(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **more)

        return call

    for name in ("open", "write", "fdatasync", "fsync", "ftruncate", "close", "pread"):
        setattr(chain.os, name, dying(name, getattr(os, name)))
    Path.replace = dying("replace", Path.replace)  # type: ignore[method-assign]
    for number in range(6):
        head = log.append({"what": "act", "i": number}, durable=number % 2 == 0)
        really_write(said, f"{head.number} {head.hash} {number}\n".encode())


def test_a_writer_killed_between_any_two_steps_loses_nothing_and_raises_no_alarm(tmp_path: Path) -> None:
    log = log_in(tmp_path, 3, 700)
    kept = tmp_path / "kept"
    shutil.copytree(log.folder, kept)
    for step in range(1, 400):
        shutil.rmtree(log.folder)
        shutil.copytree(kept, log.folder)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            append_and_die(log, step, writer)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as said:
            acknowledged = [line.split() for line in said]
        _, status = os.waitpid(child, 0)
        assert log.verify() is None, f"step {step}: {log.verify()}"
        there = {entry.number: entry for entry in log.entries()}
        for number, digest, i in acknowledged:
            assert (there[int(number)].hash, there[int(number)].value["i"]) == (digest, int(i)), f"step {step}"
        log.append({"what": "after"})
        assert log.verify() is None, f"step {step}, after the next writer: {log.verify()}"
        assert {int(number) for number, _, _ in acknowledged} <= {entry.number for entry in log.entries()}
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    else:
        pytest.fail("the writer never came to its end")
    assert step > 30
    assert len(acknowledged) == 6


@pytest.mark.parametrize("written", [0, 1, 40])
def test_a_full_disk_is_an_error_and_leaves_the_log_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    log = log_in(tmp_path, 2)
    before = log.files()[0].read_bytes()
    real = os.write
    monkeypatch.setattr(chain.os, "write", lambda handle, data: real(handle, data[:written]) if written else _full())
    with pytest.raises(AuditNotWritten, match="No space left"):
        log.append({"what": "x"})
    monkeypatch.setattr(chain.os, "write", real)
    assert log.files()[0].read_bytes() == before
    assert log.append({"what": "x"}).number == 4
    assert log.verify() is None


def _full() -> int:
    raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("")
    with pytest.raises(AuditNotWritten, match=str(tmp_path)):
        log_in(tmp_path).append({"what": "x"})


def test_the_head_stands_for_all_before_it(tmp_path: Path) -> None:
    log = log_in(tmp_path, 3)
    head = log.append({"what": "x"})
    assert log.head() == head == Head(5, head.hash)


def test_whether_an_entry_is_there_is_known_by_its_hash(tmp_path: Path) -> None:
    log = log_in(tmp_path, 0, SMALL)
    heads = [log.append({"what": f"act {number}"}) for number in range(12)]
    assert all(log.has(head) for head in heads)
    assert not log.has(Head(heads[3].number, heads[4].hash))
    assert not log.has(Head(heads[-1].number + 1, heads[-1].hash))
    for file in log.files()[:2]:
        os.utime(file, (1, 1))
    log.prune(60)
    assert log.has(heads[0])
