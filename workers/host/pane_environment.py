"""What an agent's pane has in its environment: what is on a list, and nothing else of its worker's.

So no program of an agent finds the broker's address there, nor a password or a key that it does not need.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from torch_tasks.caller import DESK_VARIABLE
from torch_tasks.link.desk import PATIENCE_VARIABLE
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.telemetry_names import RESOURCE_ATTRIBUTES, resource_attributes
from torch_tasks.model.traceparent import HEADER
from torch_tasks.settings import Settings
from torch_tasks.state_folder import DESK, UNPACKED
from torch_tasks.system.environment import USUAL, allowed
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.programs.kind import AgentKind

_OF_TORCH = ("TORCH_CONFIG_DIR",)


def pane_environment(kind: AgentKind, info: AgentInfo, folder: Path, settings: Settings) -> dict[str, str]:
    """The environment of the agent's program, and of the checks of its tasks."""
    listed = (*USUAL, *settings.pane_environment, *kind.config.from_environment)
    kept = allowed(os.environ, listed)
    own = {
        # The folder of torch-tasks, by which the agent reports; last, so that it hides no command of the user's.
        "PATH": os.pathsep.join([kept.get("PATH", os.defpath), str(Path(sys.executable).parent)]),
        "TORCH_AGENT_ID": info.agent_id,
        "TORCH_INCARNATION": str(info.incarnation),
        "TORCH_STATE_DIR": str(settings.state_dir),
        RESOURCE_ATTRIBUTES: resource_attributes(info),
        DESK_VARIABLE: str(folder / DESK),
        PATIENCE_VARIABLE: f"{settings.desk_seconds:g}",
    }
    # Programs that Bun has packed unpack megabytes at every start, OpenCode's for one, and never remove them.
    unpacked = {"BUN_TMPDIR": str(folder / UNPACKED)}
    configured = {name: os.environ[name] for name in _OF_TORCH if name in os.environ}
    return {**kept, **unpacked, **kind.environment(), **configured, **own}


def task_environment(task_id: str, info: AgentInfo, folder: AttemptFolder) -> dict[str, str]:
    """What a task's own processes get beside that: its check, and the scripts that a shell runs for it."""
    return {
        "TORCH_TASK_ID": task_id,
        "TORCH_INCARNATION": str(info.incarnation),
        "TORCH_CONTEXT": str(folder.context),
        HEADER.upper(): folder.span,
        RESOURCE_ATTRIBUTES: resource_attributes(info, task_id),
    }
