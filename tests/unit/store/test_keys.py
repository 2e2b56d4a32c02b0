"""The names of queues and keys."""

from __future__ import annotations

import pytest

from torch_tasks import keys
from torch_tasks.errors import InvalidTask
from torch_tasks.model.task import TaskSpec

DEMANDS = [
    (None, ()),
    ("developer", ()),
    (None, ("python",)),
    ("developer", ("python", "git")),
    ("code-review_2", ("node.js", "c#", "x")),
]


@pytest.mark.parametrize(
    ("role", "skills", "queue"),
    [
        (None, (), "torch.any.any"),
        ("developer", (), "torch.developer.any"),
        (None, ("python",), "torch.any.python"),
        ("developer", ("python", "git"), "torch.developer.git+python"),
        ("developer", ("git", "python"), "torch.developer.git+python"),
    ],
)
def test_the_name_of_a_task_queue(role: str | None, skills: tuple[str, ...], queue: str) -> None:
    assert keys.task_queue(role, skills) == queue


@pytest.mark.parametrize(("role", "skills"), DEMANDS)
def test_a_queue_is_read_back_as_what_it_asks_for(role: str | None, skills: tuple[str, ...]) -> None:
    assert keys.queue_demand(keys.task_queue(role, skills)) == (role, frozenset(skills))


def test_a_skill_may_not_be_a_word_that_queue_names_use() -> None:
    with pytest.raises(InvalidTask, match="'any' is a word that queue names use"):
        TaskSpec.build(prompt="x", skills=["any"])


def test_no_task_queue_is_called_like_a_queue_of_another_kind() -> None:
    others = {keys.agent_queue("x").split(".")[1], keys.node_queue("x").split(".")[1], keys.SYSTEM_QUEUE.split(".")[1]}
    assert others | {keys.ANY} == keys.RESERVED_WORDS


def test_all_keys_lie_under_the_one_prefix() -> None:
    made = [value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str) and ":" in value]
    assert len(made) > 5
    assert all(value.startswith("nova:torch:") for value in [*made, keys.task_record("x")])


def test_each_thing_has_a_key_of_its_own() -> None:
    made = [value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)]
    assert len(made) == len(set(made))
    assert keys.task_record("a") != keys.task_record("b")
