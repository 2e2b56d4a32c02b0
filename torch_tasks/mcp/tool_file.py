"""The forms of the tools in a file: a server that reads them loads no operations, which takes half of its memory.

The worker of an agent writes the file, and the server in the agent's pane asks at the agent's desk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from torch_tasks.mcp.tools import TOOLS, ToolForm
from torch_tasks.system.files import write_private

_RELEASE, _FORMS = "torch", "tools"


def write_tool_forms(file: Path) -> None:
    """Write the forms of all tools, for this release."""
    from torch_tasks.mcp.schemas import tool_forms

    forms = {name: asdict(form) for name, form in tool_forms().items()}
    write_private(file, json.dumps({_RELEASE: version("torch-tasks"), _FORMS: forms}))


def read_tool_forms(file: Path | None) -> Mapping[str, ToolForm]:
    """The forms in the file, or those of the operations themselves if it has none of this release."""
    try:
        known = json.loads(file.read_bytes()) if file else {}
        forms = {name: ToolForm(**form) for name, form in known[_FORMS].items()}
        if known[_RELEASE] == version("torch-tasks") and forms.keys() == {tool.name for tool in TOOLS}:
            return forms
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    from torch_tasks.mcp.schemas import tool_forms

    return tool_forms()
