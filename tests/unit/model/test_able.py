"""Which queue a task goes to, who reads it, and when nobody can."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks import keys
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.routing import (
    GONE,
    Obstacle,
    Prospects,
    is_able,
    is_held_back,
    is_there,
    obstacles,
    queue_for,
    serves,
    why_no_successor,
)
from torch_tasks.model.task import TaskRecord, TaskSpec, TaskState


def agent(agent_id: str = "dev-1", *, online: bool = True, skills: tuple[str, ...] = ("git", "python")) -> AgentInfo:
    """A developer in the registry."""
    known = {"agent_id": agent_id, "role": "developer", "skills": skills, "kind": "shell", "node": "n", "pid": 1}
    rest = {"host": "h", "incarnation": 1, "workdir": "/", "tmux_socket": "/t", "started_at": now()}
    rest["status"] = "active" if online else "offline"
    return AgentInfo.model_validate(known | rest)


def spec(**fields: Any) -> TaskSpec:
    """What is asked."""
    return TaskSpec.build(prompt="x", **fields)


def record(state: TaskState = TaskState.QUEUED, **fields: Any) -> TaskRecord:
    """A task that waits, unless said otherwise."""
    asked = spec(**fields)
    return TaskRecord(spec=asked, state=state, queue=queue_for(asked), created_at=now())


@pytest.mark.parametrize(
    ("fields", "queue"),
    [
        ({}, "torch.any.any"),
        ({"role": "Developer"}, "torch.developer.any"),
        ({"skills": ["python", "git"]}, "torch.any.git+python"),
        ({"role": "developer", "skills": ["python"]}, "torch.developer.python"),
        ({"agent": "Dev-1"}, "torch.agent.dev-1"),
        ({"agent": "dev-1", "role": "qa", "skills": ["rust"]}, "torch.agent.dev-1"),
    ],
)
def test_a_task_goes_to_the_queue_of_what_it_asks_for(fields: dict[str, Any], queue: str) -> None:
    assert queue_for(spec(**fields)) == queue


@pytest.mark.parametrize(
    ("role", "skills", "able"),
    [
        (None, (), True),
        ("developer", (), True),
        ("qa", (), False),
        (None, ("python",), True),
        (None, ("python", "git"), True),
        (None, ("python", "rust"), False),
        ("developer", ("git",), True),
        ("qa", ("git",), False),
    ],
)
def test_a_queue_is_read_by_whoever_has_the_role_and_all_the_skills(
    role: str | None, skills: tuple[str, ...], able: bool
) -> None:
    assert serves(keys.task_queue(role, skills), agent()) is able


def test_an_agent_without_skills_serves_only_what_asks_for_none() -> None:
    assert serves("torch.any.any", agent(skills=()))
    assert not serves("torch.any.git", agent(skills=()))


@pytest.mark.parametrize(
    ("fields", "agents", "alone"),
    [
        ({}, [], True),
        ({}, [agent(online=False)], True),
        ({}, [agent()], False),
        ({"role": "developer"}, [agent()], False),
        ({"role": "qa"}, [agent()], True),
        ({"skills": ["python"]}, [agent()], False),
        ({"skills": ["python", "rust"]}, [agent(), agent("dev-2", skills=("rust",))], True),
        ({"skills": ["rust"]}, [agent(), agent("dev-2", skills=("rust",))], False),
        ({"skills": ["rust"]}, [agent(), agent("dev-2", skills=("rust",), online=False)], True),
        ({"agent": "dev-1"}, [agent()], False),
        ({"agent": "dev-1"}, [agent(online=False)], True),
        ({"agent": "dev-1"}, [agent("dev-2")], True),
        ({"agent": "dev-1", "role": "qa", "skills": ["rust"]}, [agent()], False),
    ],
)
def test_a_waiting_task_is_unroutable_if_no_live_agent_can_serve_it(
    fields: dict[str, Any], agents: list[AgentInfo], alone: bool
) -> None:
    assert Prospects(agents).unroutable(record(**fields)) is alone


@pytest.mark.parametrize("state", sorted(set(TaskState) - {TaskState.QUEUED}))
def test_only_what_waits_can_be_unroutable(state: TaskState) -> None:
    assert not Prospects([]).unroutable(record(state, role="qa"))


def test_the_one_agent_works_on_something_else_or_has_just_begun() -> None:
    waiting = record(agent="dev-1")
    elsewhere = agent().model_copy(update={"current_task": "another"})
    begun = agent().model_copy(update={"current_task": waiting.spec.id})
    assert Prospects([elsewhere]).why_waiting(waiting) == "dev-1 works on another"
    assert Prospects([begun]).why_waiting(waiting) is None


def test_a_task_waits_for_an_agent_that_is_not_there_yet_and_says_for_what() -> None:
    held_up = agent().model_copy(update={"state": AgentState.WAITING, "asks": "Trust it?"})
    assert Prospects([agent()]).why_waiting(record(agent="dev-1")) == "dev-1 is starting"
    reason = "dev-1 is held up: Trust it? ('torch-tasks attach dev-1')"
    assert Prospects([held_up]).why_waiting(record(agent="dev-1")) == reason


@pytest.mark.parametrize(
    ("fields", "able"),
    [
        ({}, True),
        ({"role": "developer", "skills": ["git", "shell"]}, True),
        ({"role": "qa"}, False),
        ({"skills": ["git", "rust"]}, False),
        ({"agent": "dev-1", "role": "qa", "skills": ["rust"]}, True),
        ({"agent": "dev-2"}, False),
    ],
)
@pytest.mark.parametrize("online", [True, False])
def test_an_agent_is_able_to_do_what_asks_for_it_or_for_no_more_than_it_has(
    fields: dict[str, Any], able: bool, online: bool
) -> None:
    assert is_able(agent(online=online), spec(**fields)) is able


HOLD = {"by": {"kind": "person", "name": "operator"}, "reason": "", "at": now()}


@pytest.mark.parametrize(
    ("changes", "found", "there", "held_back", "no_successor"),
    [
        ({}, [], True, False, ""),
        ({"state": "ready", "load": 3, "current_task": "t"}, [], True, False, ""),
        ({"state": "waiting"}, [], True, False, ""),
        ({"status": "offline"}, ["offline"], False, False, "it is offline"),
        ({"retiring": True}, ["retiring"], False, False, "it is retiring"),
        ({"paused": HOLD}, ["paused"], True, True, ""),
        ({"stopped": HOLD}, ["stopped"], True, True, ""),
        ({"state": "limited"}, ["limited"], True, True, "its account has reached a limit"),
        ({"state": "login"}, ["login"], True, True, "its program is logged out"),
        (
            {"state": "waiting", "asks": "Trust it?"},
            ["held-up"],
            True,
            True,
            "its program waits for a person",
        ),
        ({"state": "login", "asks": "a login"}, ["login"], True, True, "its program is logged out"),
        ({"state": "error"}, ["error"], True, False, "its program shows an error"),
        ({"state": "exited"}, ["exited"], True, False, "its program has exited"),
        ({"paused": HOLD, "state": "exited"}, ["paused", "exited"], True, True, "its program has exited"),
        ({"retiring": True, "state": "login"}, ["retiring", "login"], False, True, "it is retiring"),
    ],
)
def test_what_keeps_an_agent_from_taking_any_task(
    changes: dict[str, Any], found: list[str], there: bool, held_back: bool, no_successor: str
) -> None:
    known = AgentInfo.model_validate(agent().model_dump(exclude_computed_fields=True) | changes)
    assert obstacles(known) == found
    assert is_there(known) is there
    assert is_held_back(known) is held_back
    assert why_no_successor(known, spec()) == no_successor


def test_a_successor_must_have_the_skills_but_not_the_role() -> None:
    assert why_no_successor(agent(), spec(role="qa", skills=["git"])) == ""
    assert why_no_successor(agent(), spec(skills=["rust", "git", "c"])) == "it lacks c, rust"


def test_the_registry_keeps_the_obstacles_of_those_who_are_there_by_these_words() -> None:
    assert sorted(frozenset(Obstacle) - GONE) == ["error", "exited", "held-up", "limited", "login", "paused", "stopped"]
