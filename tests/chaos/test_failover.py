"""A fail-over under load, with a replica that has not heard of the primary's last second: nothing lost or doubled.

``make chaos`` has five of them each way, with 500 tasks.
"""

from __future__ import annotations

import pytest

from chaos.failover import rounds
from chaos.test_chaos import show

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_nothing_is_lost_or_doubled_when_a_replica_takes_over(capsys: pytest.CaptureFixture[str]) -> None:
    outcome, missed = rounds("sentinel", 1, 40, 7)
    assert missed[0] > 0
    show(outcome, capsys, f"one fail-over, {missed[0]} bytes not replicated")
