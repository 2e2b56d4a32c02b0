"""Which program of Torch's drives which kind of agent."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from torch_tasks.errors import AgentUnavailable, InvalidSettings
from torch_tasks.model.agent import AgentSpec
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.kind import AgentKind

_PROGRAMS = {
    "aider": "torch_tasks.workers.programs.aider:Aider",
    "claude": "torch_tasks.workers.programs.claude:Claude",
    "gemini": "torch_tasks.workers.programs.gemini:Gemini",
    "codex": "torch_tasks.workers.programs.codex:Codex",
    "generic": "torch_tasks.workers.programs.generic:Generic",
    "opencode": "torch_tasks.workers.programs.opencode:OpenCode",
    "shell": "torch_tasks.workers.programs.shell:Shell",
}


def require_startable(spec: AgentSpec) -> None:
    """Refuse at once what would only fail when the agent's worker starts."""
    kind_config(spec.kind).require_program(spec)
    if spec.workdir and not Path(spec.workdir).is_dir():
        raise AgentUnavailable(f"agent {spec.id} cannot start: its workdir {spec.workdir} is not a folder on this node")


def program_of(spec: AgentSpec, folder: Path, workdir: Path) -> AgentKind:
    """The program that this agent is."""
    kind = spec.kind
    config = kind_config(kind)
    named = config.base or kind
    program = config.program or (named if named in _PROGRAMS else "generic")
    if program not in _PROGRAMS:
        raise InvalidSettings(f"agent kind {kind!r}: there is no program {program!r}, but {', '.join(_PROGRAMS)}")
    module, name = _PROGRAMS[program].split(":")
    made: Any = getattr(import_module(module), name)(config, spec, folder, workdir)
    assert isinstance(made, AgentKind)
    return made
