"""A host is cut off together with the primary, while tasks flow on both sides: nothing is lost or begun twice.

``make chaos`` has three cuts, with 300 tasks.
"""

from __future__ import annotations

import pytest
from hosts import why_not

from chaos.partition import rounds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_nothing_is_lost_or_doubled_when_there_are_two_primaries(capsys: pytest.CaptureFixture[str]) -> None:
    if reason := why_not():
        pytest.skip(reason)
    report = rounds(1, 40, 7)
    with capsys.disabled():
        print(f"\n{report.cuts[0]}\n{report.table}")
    assert report.cuts[0].alone > 0
    assert report.verdict.good, report.details
