"""What is missing for check-ins to come up."""

from __future__ import annotations

import pytest

from torch_tasks.checkins.readiness import Readiness


@pytest.mark.parametrize(
    ("leads", "nodes", "lacks"),
    [
        ("beat-1", ("node-a",), []),
        (None, ("node-a",), ["no beat runs"]),
        ("beat-1", (), ["no node worker runs"]),
        (None, (), ["no beat runs", "no node worker runs"]),
    ],
)
def test_a_beat_that_leads_and_a_node_worker_are_needed(
    leads: str | None, nodes: tuple[str, ...], lacks: list[str]
) -> None:
    assert [lack.partition(":")[0] for lack in Readiness(leads, nodes).lacks] == lacks
