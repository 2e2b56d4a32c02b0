"""Torch's tools in an agent's program: how each program is set up to start ``torch-tasks mcp``."""

from __future__ import annotations

from pathlib import Path

from torch_tasks.machine.commands import MCP, runnable
from torch_tasks.mcp.tool_file import write_tool_forms

NAME = "torch"
"""What the server is called in each program."""
TOOL_SECONDS = 300
"""How long the programs are set to wait for a tool."""
START_SECONDS = 60
"""How long for the server's start, on a busy machine."""
_LONGEST_WAIT_SECONDS = 240
"""By then a tool that waits returns."""
PASSED_ON = ("PATH", "TORCH_AGENT_ID", "TORCH_DESK", "TORCH_DESK_SECONDS", "TORCH_INCARNATION", "TORCH_STATE_DIR")
"""The pane's variables that the server needs, for a program that passes none on by itself."""


def server_command(folder: Path) -> list[str]:
    """The command line of the server of an agent with this folder, into which goes what the server is to know."""
    tools = folder / "tools.json"
    write_tool_forms(tools)
    return runnable([*MCP, "--longest-wait", str(_LONGEST_WAIT_SECONDS), "--tools", str(tools)])
