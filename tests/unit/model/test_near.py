"""Names near to one that does not exist."""

from __future__ import annotations

import pytest

from torch_tasks.model.near import did_you_mean, near

AGENTS = ["developer-1", "developer-2", "qa-1", "Reviewer"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("developr-1", ["developer-1", "developer-2"]),
        ("qa1", ["qa-1"]),
        ("QA-1", ["qa-1"]),
        ("reviewer", ["Reviewer"]),
        ("zzz", []),
        ("", []),
    ],
)
def test_the_nearest_name_comes_first(name: str, found: list[str]) -> None:
    assert near(name, AGENTS) == found


def test_a_hint_names_what_is_near_or_what_else_to_do() -> None:
    assert did_you_mean("qa1", AGENTS, "look at the list") == "did you mean qa-1?"
    assert did_you_mean("developr-1", AGENTS) == "did you mean developer-1 or developer-2?"
    assert did_you_mean("zzz", AGENTS, "look at the list") == "look at the list"
