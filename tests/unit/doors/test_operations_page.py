"""Every act is an operation, docs/operations.md shows all of them, and each command is known to ask for its own."""

from __future__ import annotations

import ast
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from torch_tasks.cli import main
from torch_tasks.cli.operations import COMMANDS_OF
from torch_tasks.operations import operation
from torch_tasks.operations.operation import all_operations

REPOSITORY = Path(__file__).parents[3]
OPERATIONS = {one.name: one for one in all_operations()}
CTX = click.Context(main)
MODULES = sorted((REPOSITORY / "torch_tasks" / "cli").glob("*.py"))
#: What a command does on this machine alone, or with its files and processes: no door leads there.
LOCAL = {
    "backup lost", "backup make", "backup verify", "restore",
    "broker add", "broker follow", "broker make", "broker move", "broker remove", "broker rotate", "broker users",
    "certify", "compat install", "completion", "console", "demo", "doctor", "down", "init", "keys issue", "keys list",
    "keys revoke", "keys rotate", "kinds", "logs", "mcp", "node", "node invite",
    "node join", "operations", "serve", "token create", "token list", "token revoke", "up", "version",
    "deploy systemd", "deploy compose", "deploy kubernetes", "deploy secrets",
    "worker",
}  # fmt: skip
#: What no command asks for: programs do, or the command line itself while a person types.
OF_PROGRAMS = {
    "agent.changes": "AgentRegistry().watch()",
    "agent.find": "AgentRegistry().find_available_agents()",
    "agent.give_back": "the console's page of an agent",
    "agent.lately": "the console's page of an agent",
    "agent.paste": "the console's page of an agent",
    "agent.take_over": "the console's page of an agent",
    "agent.taken_over": "the console's page of an agent",
    "agent.type": "the console's page of an agent",
    "agent.skills": "AgentRegistry().skills()",
    "canvas.group_kept": "Celery's GroupResult, in a pane",
    "canvas.keep_group": "Celery's group, in a pane",
    "canvas.publish": "Celery's apply_async(), in a pane",
    "canvas.result": "Celery's AsyncResult, in a pane",
    "canvas.set_chord_size": "Celery's chord, in a pane",
    "checkin.readiness": "the warnings of Torch().checkins",
    "fleet.health": "SystemMonitor().get_system_health(), python -m torch_tasks.orchestration.agent_registry --status",
    "fleet.holds": "the console; `doctor` shows the same",
    "fleet.needs": "part of fleet.summary",
    "fleet.seen": "the console, where a notification is opened, or the button Seen is pressed",
    "message.listen": "NovaOrchestrator().subscribe_to_role()",
    "name.find": "ids of which the beginning is typed, completion, and what is near to a mistyped word",
    "task.records": "the console",
    "task.assign": "TaskOrchestrator().assign_task()",
    "task.board": "the console",
    "task.diff": "the console",
    "task.graph": "the console",
}


def page() -> str:
    """What docs/generate_operations.py makes of the operations."""
    made: str = runpy.run_path(str(REPOSITORY / "docs" / "generate_operations.py"))["page"]()
    return made


def commands() -> Iterator[str]:
    """Every command, with the group that it is in."""

    def walk(name: str, command: click.Command) -> Iterator[str]:
        inner = command.list_commands(CTX) if isinstance(command, click.Group) else []
        if name and (not inner or command.invoke_without_command):  # type: ignore[attr-defined]
            yield name
        for one in inner:
            if found := command.get_command(CTX, one):  # type: ignore[attr-defined]
                yield from walk(f"{name} {one}".strip(), found)

    return walk("", main)


def without_options(command: str) -> str:
    return command.partition(" --")[0]


def test_the_page_shows_the_operations_as_they_are() -> None:
    assert (REPOSITORY / "docs" / "operations.md").read_text() == page(), "run python docs/generate_operations.py"


def test_every_command_asks_for_operations_or_is_known_to_work_on_this_machine_alone() -> None:
    asking = {without_options(command) for named in COMMANDS_OF.values() for command in named}
    assert set(commands()) - asking == LOCAL
    assert asking - set(commands()) == set()


@pytest.mark.parametrize("named", sorted({command for named in COMMANDS_OF.values() for command in named}))
def test_each_command_has_the_option_with_which_it_asks(named: str) -> None:
    name, _, option = named.partition(" --")
    command: Any = main
    for word in name.split():
        command = command.get_command(CTX, word)
    assert not option or f"--{option}" in {flag for one in command.params for flag in one.opts}


def test_every_operation_is_asked_for_by_a_command_or_by_programs() -> None:
    assert set(OPERATIONS) - set(COMMANDS_OF) == set(OF_PROGRAMS)
    assert set(COMMANDS_OF) <= set(OPERATIONS)


def asked_in(module: Path) -> set[str]:
    """The operations that a module of the command line performs itself."""
    tree = ast.parse(module.read_text())
    modules = {
        alias.asname or alias.name: f"torch_tasks.operations.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "torch_tasks.operations"
        for alias in node.names
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            declared = getattr(__import__(modules[node.value.id], fromlist=["_"]), node.attr)
            if isinstance(declared, operation.Operation):
                found.add(declared.name)
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda file: file.stem)
def test_what_a_command_performs_is_among_what_it_is_known_for(module: Path) -> None:
    assert asked_in(module) - set(COMMANDS_OF) - set(OF_PROGRAMS) == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda file: file.stem)
def test_no_command_reaches_for_a_store_of_the_fleet(module: Path) -> None:
    imported = {
        node.module
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert module.stem in ON_THIS_MACHINE or "torch_tasks.fleet" not in imported


#: They look at this machine's own stack and broker.
ON_THIS_MACHINE = {"demo", "fleet_checks", "stack", "supervise"}


def test_the_list_and_one_operation_are_shown_and_an_unknown_one_is_named() -> None:
    listed = CliRunner().invoke(main, ["operations"])
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.output.splitlines()[1:] if line.strip()] == list(OPERATIONS)
    shown = CliRunner().invoke(main, ["operations", "agent.pause"])
    assert "writes; right: hold; returns: HoldReport" in shown.output
    assert re.search(r"^interrupt +boolean +false +Interrupt their tasks", shown.output, re.MULTILINE)
    wrong = CliRunner().invoke(main, ["operations", "agent.pawse"])
    assert wrong.exit_code == 2
    assert "did you mean agent.pause" in wrong.output


def test_a_program_gets_the_schemas() -> None:
    said: dict[str, Any] = json.loads(CliRunner().invoke(main, ["operations", "task.cancel", "--json"]).output)
    assert said["access"] == "write"
    assert said["request"]["properties"].keys() == {"task_id"}
    assert "cancelled" in said["reply"]["enum"]
    every = json.loads(CliRunner().invoke(main, ["operations", "--json"]).output)
    assert [one["name"] for one in every] == list(OPERATIONS)
