"""The tools fit the operations behind them, cost a model few words, and show it nothing that steers a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torch_tasks.errors import UnknownOperation
from torch_tasks.mcp.patience import LEAST_PATIENCE_SECONDS, PATIENCE_SECONDS, patience
from torch_tasks.mcp.replies import LONGEST_TEXT, shown, written
from torch_tasks.mcp.resources import RESOURCES, resource_at
from torch_tasks.mcp.schemas import input_schema, tool_forms
from torch_tasks.mcp.tool_file import read_tool_forms, write_tool_forms
from torch_tasks.mcp.tools import KEY, TOOLS, Tool, tool_named
from torch_tasks.operations.operation import Access, operation_named

BY_NAME = {tool.name: tool for tool in TOOLS}
CHEAP = 1_200
"""The characters that the description of a tool may have on average: every conversation begins with all of them."""


@pytest.mark.parametrize("name", BY_NAME)
def test_a_tool_asks_for_what_its_operation_takes(name: str) -> None:
    tool = BY_NAME[name]
    request = operation_named(tool.operation).request
    assert tool.asks.keys() <= request.model_fields.keys()
    needed = {field for field, info in request.model_fields.items() if info.is_required()}
    assert needed <= tool.asks.keys()
    assert set(input_schema(name).get("required", ())) == needed


@pytest.mark.parametrize("name", BY_NAME)
def test_every_argument_says_what_it_is(name: str) -> None:
    schema = input_schema(name)
    assert schema["additionalProperties"] is False
    for field, described in schema["properties"].items():
        assert described.get("description"), f"{name}: {field}"
    assert "$ref" not in json.dumps(schema)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_tool_shows_what_is_in_the_reply(name: str) -> None:
    tool = BY_NAME[name]
    whole = operation_named(tool.operation).reply.json_schema(mode="serialization")
    for path in tool.shows:
        assert _has(whole, whole, path.split(".")), f"{name}: {path}"


def _has(whole: dict[str, Any], schema: dict[str, Any], path: list[str]) -> bool:
    """Whether the reply has this path, or is a value, which has a name from the tool."""
    if "$ref" in schema:
        return _has(whole, whole["$defs"][schema["$ref"].rpartition("/")[2]], path)
    if schema.get("type") == "array":
        return _has(whole, schema["items"], path)
    choices = schema.get("anyOf")
    if choices:
        return any(_has(whole, choice, path) for choice in choices)
    if schema.get("type") != "object":
        return len(path) <= 1
    if not path:
        return True
    fields = schema.get("properties", {})
    return path[0] in fields and (len(path) == 1 or _has(whole, fields[path[0]], path[1:]))


def test_all_that_write_take_an_idempotency_key() -> None:
    """But for a report, which counts once anyway, and for a wait, which has the id of what it is for."""
    for tool in TOOLS:
        writes = operation_named(tool.operation).access is Access.WRITE
        polls = tool.waits is not None and tool.waits.meanwhile is not None
        assert (KEY in input_schema(tool.name)["properties"]) == (writes and not polls and not tool.in_panes_only), (
            tool.name
        )


def test_what_waits_says_how_to_go_on_with_tools_that_exist() -> None:
    for tool in TOOLS:
        if tool.waits:
            assert any(other in tool.waits.otherwise.split() for other in BY_NAME), tool.name


def test_all_tools_together_cost_a_model_few_words() -> None:
    whole = [f"{tool.name}{tool.says}{json.dumps(input_schema(tool.name))}" for tool in TOOLS]
    assert sum(map(len, whole)) / len(whole) <= CHEAP


def test_a_wait_is_as_long_as_the_client_is_patient() -> None:
    assert patience("claude-code") == PATIENCE_SECONDS["claude-code"]
    assert patience("unheard of") == patience(None) == LEAST_PATIENCE_SECONDS < 60


def test_empty_fields_are_left_out_and_a_path_is_shown_by_its_last_name() -> None:
    tool = Tool("t", "task.get", "", shows=("spec.id", "result.answer", "agent", "attempts"))
    assert shown(tool, {"spec": {"id": "a"}, "result": None, "agent": "", "attempts": 2}) == {"id": "a", "attempts": 2}
    assert shown(tool, [{"spec": {"id": "a"}}]) == {"found": [{"id": "a"}]}
    assert shown(tool, []) == {"found": []}
    assert shown(Tool("t", "task.cancel", "", shows=("state_before",)), "queued") == {"state_before": "queued"}


def test_what_a_model_reads_is_visible_and_bounded() -> None:
    text = written({"answer": "\x1b[2J\u202e!", "long": "é" * (LONGEST_TEXT + 7)})
    assert json.loads(text)["answer"] == "␛[2J⟨U+202E⟩!"
    assert json.loads(text)["long"].endswith("é … (7 more characters)")
    assert len(text) < LONGEST_TEXT + 100


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.address)
def test_a_resource_is_read_by_an_operation_that_takes_its_address(resource: Any) -> None:
    operation = operation_named(resource.operation)
    assert operation.access is Access.READ
    address = resource.address.replace("{", "").replace("}", "")
    found, fields = resource_at(address)
    assert found is resource
    assert fields.keys() <= operation.request.model_fields.keys()


def test_an_address_is_decoded_and_an_unknown_one_is_named() -> None:
    assert resource_at("torch://task/a%2Fb")[1] == {"task_id": "a/b"}
    for address in ("torch://task/", "torch://task/a/b/c", "torch://", "file:///etc/passwd"):
        with pytest.raises(UnknownOperation, match="there is no resource"):
            resource_at(address)


def test_an_unknown_tool_is_named_with_the_near_ones() -> None:
    assert tool_named("enqueue").operation == "task.enqueue"
    with pytest.raises(UnknownOperation, match="no tool 'wait'"):
        tool_named("wait")


def test_the_forms_in_a_file_are_those_of_the_operations(tmp_path: Path) -> None:
    write_tool_forms(tmp_path / "tools.json")
    assert read_tool_forms(tmp_path / "tools.json") == tool_forms()


@pytest.mark.parametrize("written", ["", "{", "[]", '{"torch": "0", "tools": {}}', '{"torch": 1, "tools": 2}', None])
def test_a_file_that_is_none_of_this_release_is_not_used(tmp_path: Path, written: str | None) -> None:
    file = tmp_path / "tools.json"
    if written is not None:
        file.write_text(written)
    assert read_tool_forms(file) == tool_forms()


def test_with_the_file_the_server_in_a_pane_loads_no_operations(tmp_path: Path) -> None:
    write_tool_forms(tmp_path / "tools.json")
    program = (
        "import sys, anyio; from pathlib import Path; from mcp import Client\n"
        "from torch_tasks.mcp import stdio, tool_file; from torch_tasks.mcp.server import ModelDoor\n"
        f"door = ModelDoor(stdio._ask(), lambda: tool_file.read_tool_forms(Path({str(tmp_path / 'tools.json')!r})))\n"
        "async def main():\n"
        "    async with Client(door.server) as client:\n"
        "        assert (await client.list_tools()).tools\n"
        "        assert (await client.call_tool('tasks', {'limits': 1})).is_error\n"
        "anyio.run(main)\n"
        "print(*sorted({'celery', 'kombu', 'redis', 'torch_tasks.operations'} & set(sys.modules)))"
    )
    desk = {**os.environ, "TORCH_DESK": str(tmp_path / "desk")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=desk, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
