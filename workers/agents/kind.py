"""What Torch must know of a kind of agent program to host it. One file per kind implements it."""

from __future__ import annotations

import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from torch_tasks.errors import InvalidSettings
from torch_tasks.models import TaskSpec, readable
from torch_tasks.resources import config_file
from workers.runs import Run
from workers.tmux.pane import AgentPane


class KindConfig(BaseModel):
    """``config/agents/<kind>.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: tuple[str, ...] = Field(min_length=1)
    environment: Mapping[str, str] = {}


@dataclass(frozen=True)
class Ending:
    """How the agent's program left a task."""

    exit_code: int
    crashed: bool


class AgentKind(ABC):
    """One agent program in its pane, with its folder on disk."""

    def __init__(self, config: KindConfig, agent_id: str, folder: Path) -> None:
        self.config = config
        self.agent_id = agent_id
        self.folder = folder

    @abstractmethod
    def launch(self) -> list[str]:
        """The command that runs in the pane. Called before each start, so it may prepare files."""

    @abstractmethod
    def ready(self) -> bool:
        """The program has started and takes tasks."""

    @abstractmethod
    def free(self, pane: AgentPane) -> bool:
        """Nothing but an empty input line is in the pane: typing disturbs nobody."""

    @abstractmethod
    def redraw_input(self, pane: AgentPane) -> None:
        """Have the input line show what is in it, and not what a job in the background printed there."""

    @abstractmethod
    def discard_input(self, pane: AgentPane) -> None:
        """Empty the input line of what a worker of ours left there."""

    @abstractmethod
    def begin(self, pane: AgentPane, run: Run, spec: TaskSpec, variables: Mapping[str, str]) -> None:
        """Put the task into the pane."""

    @abstractmethod
    def ending(self, run: Run) -> Ending | None:
        """How the program left the task, or nothing while it works on it."""

    @abstractmethod
    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        """Have the program let go of what it does; with ``force``, without asking it."""


@cache
def _config(kind: str) -> KindConfig:
    path = config_file(f"agents/{kind}.toml")
    if path is None:
        raise InvalidSettings(f"there is no agent kind {kind!r}: no agents/{kind}.toml in the configuration folders")
    try:
        return KindConfig.model_validate(tomllib.loads(path.read_text()))
    except ValidationError as error:
        raise InvalidSettings(f"{path}: {readable(error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{path} is not valid TOML: {error}") from None


_KINDS = {"shell": "workers.agents.shell:Shell"}


def kind_named(kind: str, agent_id: str, folder: Path) -> AgentKind:
    """The agent program of this kind, for this agent."""
    config = _config(kind)
    if kind not in _KINDS:
        raise InvalidSettings(
            f"agent kind {kind!r} has a TOML file but no program; there are: {', '.join(sorted(_KINDS))}"
        )
    module, name = _KINDS[kind].split(":")
    made: Any = getattr(import_module(module), name)(config, agent_id, folder)
    assert isinstance(made, AgentKind)
    return made
