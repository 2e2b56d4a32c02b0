"""A model's tools reach an agent's desk, without a broker's address and without the operations in its server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from machine import short_folder
from mcp import Client
from mcp.types import CallToolResult

from torch_tasks.caller import Caller
from torch_tasks.link.desk import DeskLink
from torch_tasks.mcp.schemas import tool_forms
from torch_tasks.mcp.server import ModelDoor
from torch_tasks.state_folder import EVENTS, JOURNAL
from torch_tasks.workers.host.desk import Desk


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder of an agent that works on a task."""
    folder = short_folder() / "agents" / "qa-1"
    (folder / EVENTS).mkdir(parents=True)
    (folder / JOURNAL).write_text(json.dumps({"kind": "claude", "current": {"task_id": "t1"}}))
    yield folder
    subprocess.run(["rm", "-r", str(folder.parents[1])], check=True)


@pytest.fixture
def desk(folder: Path) -> Iterator[DeskLink]:
    desk = Desk(folder, lambda pid: Caller("qa-1", 7, folder, role="qa", pid=pid))
    desk.open()
    try:
        yield DeskLink(desk.path)
    finally:
        desk.close()


def call(desk: DeskLink, tool: str, **arguments: str) -> CallToolResult:
    """What a tool answers."""

    async def ask() -> CallToolResult:
        async with Client(ModelDoor(desk.call, tool_forms).server) as client:
            return await client.call_tool(tool, arguments)

    return anyio.run(ask)


def test_a_report_reaches_the_agents_folder(desk: DeskLink, folder: Path) -> None:
    assert not call(desk, "progress", task_id="t1", text="half of it").is_error
    [reported] = (folder / EVENTS).iterdir()
    assert "half of it" in reported.read_text()


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("progress", {"task_id": "t2", "text": "of another task"}, "t2"),
        ("done", {"text": "of none"}, "task_id: is missing"),
        ("answer", {"task_id": "t1", "reply": "1"}, "task.answer"),
        ("spawn", {"role": "developer"}, "agent.spawn"),
    ],
)
def test_what_the_agent_may_not_do_is_refused_by_name(
    desk: DeskLink, folder: Path, tool: str, arguments: dict[str, str], words: str
) -> None:
    refused = call(desk, tool, **arguments)
    assert refused.is_error
    assert words in refused.content[0].text  # type: ignore[union-attr]
    assert not list((folder / EVENTS).iterdir())
