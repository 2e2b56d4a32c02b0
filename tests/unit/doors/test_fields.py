"""A field of a task or an agent is declared once: every door has it, and a command line says what it read."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import click
import pytest

from torch_tasks.app import AGENT_OPTIONS
from torch_tasks.cli.agents import SPAWN_OPTIONS
from torch_tasks.cli.agents import spawn as spawn_command
from torch_tasks.cli.tasks import TASK_OPTIONS
from torch_tasks.cli.tasks import run as run_command
from torch_tasks.client import SpawnFields, TaskFields, Torch
from torch_tasks.machine.commands import agent_worker
from torch_tasks.model.agent import AgentFields, AgentSpec
from torch_tasks.model.options import FieldOptions
from torch_tasks.model.spawn import Pool, SpawnRequest
from torch_tasks.model.task import TaskSpec

TASK, SPAWN, AGENT = (frozenset(model.model_fields) for model in (TaskSpec, SpawnRequest, AgentSpec))
IN_PYTHON_ALONE = {"deadline", "context", "metadata"}
OF_TORCH_ITSELF = {"id", "pool"}
SMALLEST = AgentSpec(id="qa-1", role="qa")
LARGEST = AgentSpec(
    id="qa-2",
    role="qa",
    skills=("git", "python"),
    kind="claude",
    workdir="/srv/a b",
    fresh=True,
    lifetime="temporary",
    parent="boss-1",
    memory=2 << 30,
    cpu=1.5,
    processes=100,
    sandbox="always",
    network="api.example,*.pypi.org",
)


def parameters(method: Any) -> set[str]:
    """The names that a method takes one by one."""
    of = inspect.signature(method).parameters.values()
    return {one.name for one in of if one.kind is not one.VAR_KEYWORD} - {"self"}


def test_the_command_run_has_every_field_of_a_task() -> None:
    assert TASK_OPTIONS.names | {"prompt"} | IN_PYTHON_ALONE == TASK
    assert {one.name for one in run_command.params} >= TASK - IN_PYTHON_ALONE


def test_the_method_enqueue_has_every_field_of_a_task() -> None:
    assert {*get_type_hints(TaskFields), "prompt"} == TASK
    assert parameters(Torch.enqueue) == {"prompt", "agent_kind", "spool"}


def test_the_command_spawn_has_every_field_of_a_request() -> None:
    assert SPAWN_OPTIONS.names | {"role"} | OF_TORCH_ITSELF == SPAWN
    assert {one.name for one in spawn_command.params} - {"json_wanted"} == SPAWN - OF_TORCH_ITSELF


def test_the_method_spawn_has_every_field_of_a_request() -> None:
    own = {"wait", "timeout"}
    assert set(get_type_hints(SpawnFields)) | parameters(Torch.spawn) - own == SPAWN - OF_TORCH_ITSELF


def test_the_worker_and_its_command_line_have_every_field_of_an_agent() -> None:
    assert AGENT_OPTIONS.names == AGENT
    assert set(LARGEST.model_dump(exclude_defaults=True)) == AGENT, "the example says every field"


def test_what_torch_toml_pools_and_requests_say_of_an_agent_is_the_same() -> None:
    of_any_agent = frozenset(AgentFields.model_fields)
    assert all(of_any_agent <= frozenset(model.model_fields) for model in (AgentSpec, SpawnRequest, Pool))


def read(options: FieldOptions, words: list[str]) -> dict[str, Any]:
    """What a command with these options makes of a command line."""
    command = click.Command("command", params=options.parameters(), callback=lambda **said: said)
    return options.take(command.main(words, standalone_mode=False))


@pytest.mark.parametrize("agent", [SMALLEST, LARGEST])
def test_an_agent_worker_reads_what_was_said_to_it(agent: AgentSpec) -> None:
    name, command, *words = agent_worker(agent)
    assert (name, command) == ("torch-tasks", "worker")
    assert AgentSpec.model_validate(read(AGENT_OPTIONS, words)) == agent


def test_what_is_as_it_is_anyway_is_not_said() -> None:
    assert agent_worker(SMALLEST)[2:] == ("--role", "qa", "--id", "qa-1")


@pytest.mark.parametrize(
    "task",
    [
        TaskSpec(id="one", prompt="x"),
        TaskSpec(id="one", prompt="x", fresh=True, skills=("a", "b"), priority="urgent", timeout=5400.0),
        TaskSpec(id="one", prompt="x", fresh=False, check="true", check_rounds=0, permissions="ask", max_retries=0),
    ],
)
def test_a_task_is_read_as_it_is_written(task: TaskSpec) -> None:
    said = read(TASK_OPTIONS, TASK_OPTIONS.words(task))
    assert TaskSpec.build(prompt="x", **said) == task


def test_a_field_without_a_description_is_no_option() -> None:
    with pytest.raises(TypeError, match="deadline has no description"):
        FieldOptions(TaskSpec, without=("prompt", "context", "metadata"))
