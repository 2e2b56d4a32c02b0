"""The file of a backup is there whole or not at all, and says of itself whether it is what was written."""

from __future__ import annotations

import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from torch_tasks.backup.archive import MANIFEST, Archive, ArchiveWriter
from torch_tasks.backup.manifest import LAYOUT, Manifest
from torch_tasks.errors import BackupDamaged, BackupNotWritten, BackupTooNew

MADE = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = b"".join(b"line %d\n" % number for number in range(50_000))


def write(path: Path, parts: dict[str, bytes], **facts: object) -> Manifest:
    with ArchiveWriter(path) as archive:
        for name, data in parts.items():
            with archive.part(name) as part:
                part.write(data)
        fields = {"id": "b1", "version": "1", "fleet": "f", "node": "n", "place": "p", "made_at": MADE, **facts}
        manifest = Manifest.model_validate({**fields, "parts": tuple(archive.parts)})
        archive.finish(manifest.model_dump_json(), "signature")
    return manifest


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "b"
    manifest = write(file, {"one": b"", "broker.jsonl": TEXT})
    archive = Archive(file)
    archive.check()
    assert archive.manifest == manifest
    assert archive.signature == "signature"
    assert b"".join(archive.read("broker.jsonl")) == TEXT
    assert list(archive.lines("broker.jsonl")) == TEXT.decode().splitlines()
    assert archive.names("br") == ["broker.jsonl"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


def break_off(file: Path) -> None:
    with ArchiveWriter(file) as archive, archive.part("one") as part:
        part.write(b"2")
        raise RuntimeError("meanwhile")


def test_one_that_is_not_finished_leaves_the_former_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "b"
    write(file, {"one": b"1"})
    before = file.read_bytes()
    with pytest.raises(RuntimeError, match="meanwhile"):
        break_off(file)
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    file = tmp_path / "b"
    (tmp_path / ".b.killed.part").write_bytes(b"half")
    with ArchiveWriter(file):
        write(file, {"one": b"1"})
        assert len(list(tmp_path.glob(".b.*.part"))) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


def test_a_full_disk_is_named_and_nothing_is_left_there(small_disk: Path) -> None:
    file = small_disk / "b"
    write(file, {"one": b"1"})
    before = file.read_bytes()
    incompressible = os.urandom(3 << 20)
    with pytest.raises(BackupNotWritten, match=r"/b was not written: No space left.*Free room there.*as it was"):
        write(file, {"one": incompressible})
    assert file.read_bytes() == before
    assert [one.name for one in small_disk.iterdir()] == ["b"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupNotWritten, match="No such file or directory"):
        write(tmp_path / "no" / "b", {})


@pytest.mark.parametrize("at", [60, 1000, 10_000, -80])
def test_a_byte_that_was_changed_is_found(tmp_path: Path, at: int) -> None:
    file = tmp_path / "b"
    write(file, {"one": TEXT})
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(BackupDamaged, match="cannot be used"):
        Archive(file).check()


@pytest.mark.parametrize("left", [0, 10, 0.5, 0.99])
def test_one_that_was_cut_off_is_none(tmp_path: Path, left: float) -> None:
    file = tmp_path / "b"
    write(file, {"one": TEXT})
    data = file.read_bytes()
    file.write_bytes(data[: int(left * len(data)) if left < 1 else int(left)])
    with pytest.raises(BackupDamaged, match="no whole archive"):
        Archive(file)


def test_a_part_that_was_exchanged_and_one_that_was_added_are_found(tmp_path: Path) -> None:
    file = tmp_path / "b"
    manifest = write(file, {"one": b"1"})
    for parts, said in (({"one": b"2"}, "its digest is another"), ({"one": b"1", "two": b""}, "does not name: two")):
        with zipfile.ZipFile(file, "w") as changed:
            for name, data in parts.items():
                changed.writestr(name, data)
            changed.writestr(MANIFEST, manifest.model_dump_json())
            changed.writestr("manifest.signature", "signature")
        with pytest.raises(BackupDamaged, match=said):
            Archive(file).check()


def test_one_of_a_later_version_says_so(tmp_path: Path) -> None:
    file = tmp_path / "b"
    write(file, {}, layout=LAYOUT + 1)
    with pytest.raises(BackupTooNew, match="made by a later version of Torch"):
        Archive(file)
    with ArchiveWriter(file) as archive:
        archive.finish(f'{{"layout": {LAYOUT + 1}, "something": "new"}}', "")
    with pytest.raises(BackupTooNew, match="made by a later version of Torch"):
        Archive(file)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"layout": "x"}'])
def test_one_whose_manifest_is_none_is_damaged(tmp_path: Path, manifest: str) -> None:
    file = tmp_path / "b"
    with ArchiveWriter(file) as archive:
        archive.finish(manifest, "")
    with pytest.raises(BackupDamaged, match="its manifest cannot be read"):
        Archive(file)


def test_no_file_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(BackupDamaged, match="there is no such file"):
        Archive(tmp_path / "b")
