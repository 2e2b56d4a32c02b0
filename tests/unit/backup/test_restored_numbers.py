"""No number goes back by a restoring, no file leads elsewhere, and what is not whole starts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks import keys
from torch_tasks.backup.restoring import RAISED_BY, _raised, _safe
from torch_tasks.errors import BackupDamaged, StateFolderUnusable
from torch_tasks.state_folder import StateFolder
from torch_tasks.store.key_copies import KeyCopy


def test_an_incarnation_is_far_above_the_copied_one_and_not_below_the_present_one() -> None:
    copy = KeyCopy(keys.AGENT_INCARNATION, "hash", [["a", "7"], ["b", "8"]])
    assert _raised(copy, None).value == [["a", str(7 + RAISED_BY)], ["b", str(8 + RAISED_BY)]]
    present = KeyCopy(keys.AGENT_INCARNATION, "hash", [["a", "5000"], ["c", "1"]])
    assert _raised(copy, present).value == [["a", "5000"], ["b", str(8 + RAISED_BY)]]
    assert _raised(KeyCopy(keys.BEAT_EPOCH, "string", "3"), None).value == str(3 + RAISED_BY)
    assert _raised(KeyCopy(keys.BEAT_EPOCH, "string", "3"), KeyCopy("", "string", "9999")).value == "9999"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../keys/root.key", "a/../../b", "a\\..\\b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BackupDamaged, match="leads elsewhere"):
        _safe(name)


def test_a_folder_into_which_a_backup_was_half_restored_is_refused(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.require_whole()
    state.restoring.write_text("{}")
    with pytest.raises(StateFolderUnusable, match="Repeat 'torch-tasks restore'"):
        state.require_whole()
