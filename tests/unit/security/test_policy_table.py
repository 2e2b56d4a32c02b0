"""Who may do what by the policy that Torch ships, and what a file of the user's changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.communication.policy import policy
from torch_tasks.errors import InvalidSettings
from torch_tasks.operations.operation import all_operations
from torch_tasks.security import decision
from torch_tasks.security.decision import decide, require
from torch_tasks.security.rights import CONCERNS_ALL, Extent, Right, Subject
from torch_tasks.security.rules import RightsTable, Rules, rules

NONE, OWN, ANY = Extent.NONE, Extent.OWN, Extent.ANY

WHO = {
    "person": Caller(),
    "node": Caller(other=CallerKind.NODE, own_name="node-a"),
    "operator": Caller(other=CallerKind.PROGRAM, role="operator", own_name="console"),
    "program": Caller(other=CallerKind.PROGRAM, own_name="ci"),
    "viewer": Caller(other=CallerKind.PROGRAM, role="viewer", own_name="wall"),
    "agent": Caller(agent="dev-1", role="developer"),
    "manager": Caller(agent="pm-1", role="project-manager"),
}
SHIPPED = {
    #               program viewer agent manager; people, nodes and operators may all
    Right.LOOK: (ANY, ANY, ANY, ANY),
    Right.WATCH: (NONE, ANY, OWN, ANY),
    Right.ENQUEUE: (ANY, NONE, ANY, ANY),
    Right.GRANT: (NONE, NONE, NONE, NONE),
    Right.CHANGE: (OWN, NONE, OWN, OWN),
    Right.REPORT: (NONE, NONE, OWN, OWN),
    Right.ANSWER: (NONE, NONE, NONE, NONE),
    Right.REVIVE: (NONE, NONE, NONE, NONE),
    Right.SEND: (OWN, NONE, OWN, OWN),
    Right.CROSS: (NONE, NONE, NONE, NONE),
    Right.READ: (OWN, NONE, OWN, OWN),
    Right.SCHEDULE: (NONE, NONE, OWN, ANY),
    Right.SHARE: (NONE, NONE, ANY, ANY),
    Right.TYPE: (NONE, NONE, NONE, NONE),
    Right.SPAWN: (NONE, NONE, NONE, OWN),
    Right.RETIRE: (NONE, NONE, OWN, OWN),
    Right.HOLD: (NONE, NONE, NONE, NONE),
    Right.BUDGET: (NONE, NONE, NONE, NONE),
    Right.AUDIT: (NONE, NONE, NONE, NONE),
}


@pytest.fixture(autouse=True)
def _shipped_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    rules.cache_clear()
    policy.cache_clear()
    yield
    rules.cache_clear()
    policy.cache_clear()


def written(folder: Path, text: str) -> Rules:
    """The rules with this policy.toml of the user's."""
    (folder / "policy.toml").write_text(text)
    rules.cache_clear()
    return rules()


@pytest.mark.parametrize("right", Right)
def test_each_caller_has_the_rights_of_the_table(right: Right) -> None:
    program, viewer, agent, manager = SHIPPED[right]
    expected = {"program": program, "viewer": viewer, "agent": agent, "manager": manager}
    expected |= dict.fromkeys(("person", "node", "operator"), ANY)
    assert {name: rules().rule_for(who, right).extent for name, who in WHO.items()} == expected


def test_the_table_of_a_caller_has_a_key_for_every_right() -> None:
    assert set(RightsTable.model_fields) == {"default", *Right}


FORBIDDEN_TO_AGENTS = {"task.answer", "task.replay", "task.drop"}


@pytest.mark.parametrize("operation", list(all_operations()), ids=lambda one: one.name)
def test_an_agent_may_ask_for_what_its_work_needs_and_for_nothing_else(operation: Any) -> None:
    """Of what is its own: whose it is, is looked at where there is a fleet."""
    extent = rules().rule_for(WHO["agent"], operation.right).extent
    nobodys = (Right.ANSWER, Right.REVIVE, Right.TYPE, Right.HOLD, Right.SPAWN, Right.BUDGET, Right.AUDIT)
    assert (extent is NONE) == (operation.right in nobodys)
    assert operation.name not in FORBIDDEN_TO_AGENTS or extent is NONE


@pytest.mark.parametrize(
    "who",
    [
        Caller(role="nobody"),
        Caller(other=CallerKind.PROGRAM, role="agent/../person", own_name="x"),
        Caller(other=CallerKind.PROGRAM, role="role", own_name="x"),
        Caller(other=CallerKind.PROGRAM, role="model_fields", own_name="x"),
    ],
)
def test_a_role_that_no_table_names_may_do_nothing(who: Caller) -> None:
    assert {rules().rule_for(who, right).extent for right in Right} == {NONE}


def test_an_agent_whose_role_is_called_as_a_token_s_gets_no_right_from_that() -> None:
    assert rules().rule_for(Caller(agent="dev-1", role="operator"), Right.HOLD).extent is NONE


@pytest.mark.parametrize("right", sorted(CONCERNS_ALL))
def test_who_may_do_so_with_its_own_may_not_with_the_whole_fleet(right: Right, tmp_path: Path) -> None:
    written(tmp_path, f'[rights.agent]\n{right} = "own"\n')
    verdict = decide(WHO["agent"], right, Subject())
    assert not verdict.allowed
    assert verdict.not_own == "it is about the whole fleet"


def test_what_names_nothing_is_otherwise_about_the_caller() -> None:
    assert decide(WHO["agent"], Right.SEND, Subject()).allowed
    assert decide(WHO["agent"], Right.SEND, Subject(party="dev-1")).allowed
    assert decide(WHO["agent"], Right.SEND, Subject(party="qa-1")).not_own == "that is qa-1's"
    assert not decide(WHO["agent"], Right.READ, Subject(party="operator")).allowed


def test_a_users_file_counts_key_by_key_and_the_rule_says_where_it_stands(tmp_path: Path) -> None:
    given = written(
        tmp_path,
        'exchanges = 5\n\n[rights.agent]\nhold = "any"\n\n[rights.role.qa]\nanswer = "own"\n[rights.viewer]\n'
        'default = "any"\n',
    )
    place = f"{tmp_path}/policy.toml, line "
    assert str(given.rule_for(WHO["agent"], Right.HOLD)) == f'[rights.agent] hold = "any" ({place}4)'
    assert str(given.rule_for(Caller(agent="q", role="qa"), Right.ANSWER)) == (
        f'[rights.role.qa] answer = "own" ({place}7)'
    )
    assert given.rule_for(Caller(agent="q", role="qa"), Right.HOLD).extent is ANY
    assert str(given.rule_for(WHO["viewer"], Right.LOOK)) == f'[rights.viewer] default = "any" ({place}9)'
    assert "torch_tasks/config/policy.toml, line " in given.rule_for(WHO["agent"], Right.ANSWER).place
    assert policy().exchanges == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[rights.agent]\nhold = "all"\n', "policy.toml, line 2: rights.agent.hold: Input should be"),
        ('[rights.agent]\nhodl = "any"\n', "line 2: rights.agent.hodl: is not a field that exists; did you mean hold"),
        ('[rights.agents]\nhold = "any"\n', "line 1: rights.agents: is not a field that exists; did you mean agent"),
        ('[rights.role."a b"]\nhold = "any"\n', "line 1: rights.role.a b"),
    ],
)
def test_a_fault_is_named_by_line_and_key_and_nothing_is_allowed_by_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSettings, match=said.replace("[", r"\[")):
        written(tmp_path, text)
    with pytest.raises(InvalidSettings):
        policy()


def test_the_role_of_an_agent_is_asked_for_only_where_it_makes_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(decision, "role_of", lambda agent: asked.append(agent) or "project-manager")
    assert decide(Caller(agent="pm-1"), Right.ENQUEUE, Subject()).allowed
    assert asked == []
    assert decide(Caller(agent="pm-1"), Right.SPAWN, Subject()).allowed
    assert asked == ["pm-1"]


def test_a_person_needs_nothing_but_the_table_to_be_allowed() -> None:
    with acting_as(Caller()):
        require("task.cancel", Right.CHANGE, Subject(task="any"))
