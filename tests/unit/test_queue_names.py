"""Which queue a task goes to, who reads it, and when nobody can."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks import keys
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import now
from torch_tasks.model.routing import held_up, queue_for, serves, unroutable
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
    assert serves(keys.task_queue(role, skills), "developer", ("git", "python")) is able


def test_an_agent_without_skills_serves_only_what_asks_for_none() -> None:
    assert serves("torch.any.any", "developer", ())
    assert not serves("torch.any.git", "developer", ())


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
    assert unroutable(record(**fields), agents) is alone


@pytest.mark.parametrize("state", sorted(set(TaskState) - {TaskState.QUEUED}))
def test_only_what_waits_can_be_unroutable(state: TaskState) -> None:
    assert not unroutable(record(state, role="qa"), [])


def test_the_one_agent_works_on_something_else_or_has_just_begun() -> None:
    waiting = record(agent="dev-1")
    elsewhere = agent().model_copy(update={"current_task": "another"})
    begun = agent().model_copy(update={"current_task": waiting.spec.id})
    assert held_up(waiting, [elsewhere]) == "dev-1 works on another"
    assert held_up(waiting, [begun]) is None
