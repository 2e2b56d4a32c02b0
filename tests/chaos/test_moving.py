"""A fleet moves to another server while tasks flow: node worker, agents, beat, server and client follow.

``make chaos`` has four moves with 300 tasks.
"""

from __future__ import annotations

import pytest

from chaos.fleet import AGENTS
from chaos.moving import rounds
from chaos.test_chaos import show

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_nothing_is_lost_or_doubled_when_the_fleet_moves(capsys: pytest.CaptureFixture[str]) -> None:
    outcome, took, left = rounds(1, 30, 7, AGENTS[:3])
    assert not left
    show(outcome, capsys, f"one move, which took {took[0]:.1f} s")
