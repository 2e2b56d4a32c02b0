"""What is sealed opens with its passphrase alone, and the passphrase is shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.backup.sealing import Passphrase
from torch_tasks.errors import BackupDamaged, InvalidRequest, SealNotOpened

DATA = b"root key\x00" * 100


def test_it_opens_with_the_same_passphrase_for_the_same_backup() -> None:
    sealed = Passphrase("correct horse battery").seal(DATA, "b1")
    assert b"root key" not in sealed
    assert Passphrase("correct horse battery").open(sealed, "b1") == DATA
    with pytest.raises(SealNotOpened):
        Passphrase("correct horse batterz").open(sealed, "b1")
    with pytest.raises(SealNotOpened):
        Passphrase("correct horse battery").open(sealed, "b2")
    with pytest.raises(SealNotOpened):
        Passphrase("correct horse battery").open(sealed[:-1] + b"\x00", "b1")


@pytest.mark.parametrize("sealed", [b"", b"torch sealed 1\n{}\n", b"torch sealed 2\n{}\n", b"\xff" * 40])
def test_what_is_not_sealed_so_is_damaged(sealed: bytes) -> None:
    with pytest.raises(BackupDamaged, match="cannot be read"):
        Passphrase("correct horse battery").open(sealed, "b1")


def test_a_cost_that_would_take_the_machines_memory_is_refused() -> None:
    sealed = Passphrase("correct horse battery").seal(DATA, "b1").replace(b'"n": 65536', b'"n": 65536000')
    with pytest.raises(BackupDamaged, match="a way that this version does not know"):
        Passphrase("correct horse battery").open(sealed, "b1")


def test_it_is_the_first_line_of_its_file_and_no_text_of_it_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_text("correct horse battery\nanother line\n")
    passphrase = Passphrase.in_file(file)
    assert passphrase.open(Passphrase("correct horse battery").seal(DATA, "b1"), "b1") == DATA
    assert "horse" not in f"{passphrase!r} {passphrase}"


def test_a_short_one_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="at least 12 characters; this one has 5"):
        Passphrase("horse")
    with pytest.raises(InvalidRequest, match=r"cannot read the passphrase in .*: No such file"):
        Passphrase.in_file(tmp_path / "no")
