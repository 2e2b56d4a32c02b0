"""What ``torch.run`` takes, and what is said of a wrong call."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks import TaskSpec
from torch_tasks.app import accepted
from torch_tasks.errors import InvalidTask, NotInWorker
from torch_tasks.tasks.run import run

SPEC = TaskSpec(prompt="echo x", role="developer")


def call() -> Any:
    return run(SPEC)


def call_with_a_prompt() -> Any:
    return run("echo x")


def apply_here() -> Any:
    return run.apply((SPEC,)).get()


@pytest.mark.parametrize("how", [call, call_with_a_prompt, apply_here])
def test_a_task_called_like_a_function_says_what_to_do(how: Any) -> None:
    with pytest.raises(NotInWorker, match=r"hosts no agent; hand it to the fleet with run\.delay"):
        how()


@pytest.mark.parametrize("asked", [SPEC, SPEC.wire(), "echo x"])
def test_a_task_is_asked_for_as_a_spec_as_fields_or_as_a_prompt(asked: Any) -> None:
    spec = accepted(asked, "one", {"role": "developer", "priority": "high"})
    assert spec == TaskSpec(id="one", prompt="echo x", role="developer", priority="high")


@pytest.mark.parametrize("asked", [3, None, ["echo x"], b"echo x"])
def test_anything_else_is_named(asked: Any) -> None:
    with pytest.raises(InvalidTask, match="is no task; give its prompt as text, a TaskSpec, or its fields"):
        accepted(asked)


def test_a_signature_has_the_id_of_its_task() -> None:
    signature = run.s("echo x", role="developer")
    assert signature.options["task_id"] == signature.args[-1]["id"]
    assert signature.args[-1]["role"] == "developer"
