"""Which agent gets a task first."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks.caller import CallerKind
from torch_tasks.model.asker import Asker
from torch_tasks.model.fields import now
from torch_tasks.model.hold import EVERYBODY, Hold, LatestHolds, agent_scope, role_scope
from torch_tasks.store.ranking import Candidate, Search, matches, rank

NO_HOLDS = LatestHolds({})


def agent(name: str = "a", state: str = "ready", role: str = "developer", *abilities: str, **more: Any) -> Candidate:
    return Candidate(name, state, role, ("shell", *abilities), **more)


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        (Search(), []),
        (Search(role="qa"), [["role qa"]]),
        (Search(skills=("a", "b")), [["skill a", "kind a"], ["skill b", "kind b"]]),
        (Search(role="qa", skills=("a",)), [["role qa"], ["skill a", "kind a"]]),
        (Search(skills=("a", "b"), any_skill=True), [["skill a", "kind a", "skill b", "kind b"]]),
    ],
)
def test_each_way_through_the_index_leads_to_all_in_question(asked: Search, places: list[list[str]]) -> None:
    assert asked.ways() == places


@pytest.mark.parametrize(
    ("asked", "candidate", "right"),
    [
        (Search(), agent(), True),
        (Search(role="developer"), agent(), True),
        (Search(role="qa"), agent(), False),
        (Search(skills=("go",)), agent("a", "ready", "developer", "go", "c"), True),
        (Search(skills=("go", "python")), agent("a", "ready", "developer", "go"), False),
        (Search(skills=("go", "python"), any_skill=True), agent("a", "ready", "developer", "go"), True),
        (Search(skills=("go",), any_skill=True), agent(), False),
        (Search(any_skill=True), agent(), True),
        (Search(skills=("shell",)), agent(), True),
        (Search(obstacles={"limited"}), agent(state="limited"), False),
        (Search(obstacles={"limited"}), agent(state="working"), True),
        (Search(), agent(state="limited"), True),
    ],
)
def test_which_agents_match(asked: Search, candidate: Candidate, right: bool) -> None:
    assert matches(candidate, asked, NO_HOLDS) is right


@pytest.mark.parametrize("scope", [EVERYBODY, agent_scope("a"), role_scope("developer")])
def test_paused_agents_are_left_out_if_that_is_an_obstacle(scope: str) -> None:
    by = Asker(kind=CallerKind.PERSON, name="operator")
    paused, lifted = (LatestHolds({scope: Hold(by=by, at=now(), lifted=lifted)}) for lifted in (False, True))
    asked = Search(obstacles={"paused"})
    assert not matches(agent(), asked, paused)
    assert matches(agent(), asked, lifted)
    assert matches(agent(), Search(), paused)
    assert matches(agent("b", "ready", "qa"), asked, paused) is (scope != EVERYBODY)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (agent("z"), agent("a", load=1)),
        (agent("z"), agent("a", state="working")),
        (agent("z", "ready", "developer", "go"), agent("a", succeeded=9)),
        (agent("z", succeeded=9), agent("a", succeeded=9, failed=1)),
        (agent("z", succeeded=1), agent("a")),
        (agent("z"), agent("a", failed=1)),
        (agent("z", load=1), agent("a", load=2)),
        (agent("a"), agent("b")),
    ],
)
def test_which_agent_comes_first(first: Candidate, second: Candidate) -> None:
    asked = Search(wished=("go",))
    for limit in (None, 1, 2):
        for given in ([first, second], [second, first]):
            assert rank(given, asked, NO_HOLDS, limit) == [first, second][:limit]
