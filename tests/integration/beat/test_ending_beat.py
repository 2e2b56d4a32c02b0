"""A beat that is asked to end does end, whatever it is doing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from beats import BeatMachine
from nodes import Broker

from torch_tasks import keys
from torch_tasks.fleet import fleet

pytestmark = pytest.mark.slow


def test_a_beat_that_is_asked_to_end_while_it_starts_ends_in_order(broker: Broker, empty: None) -> None:
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with closing(BeatMachine(broker)) as machine:
        beat = machine.beat(app="beat_app", ENTRIES="every second", ENDS_BEAT="1", **path)
        assert beat.process.wait(timeout=60) == 0, beat.logs()
        assert "beat: Starting..." in beat.logs()
        assert "Traceback" not in beat.logs()
        assert fleet().client.get(keys.BEAT_LEADER) is None
