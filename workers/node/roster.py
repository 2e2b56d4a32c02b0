"""The roster: which agents this machine keeps alive, on disk, whatever becomes of the process that keeps them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.spawn import Spawned
from torch_tasks.system.files import make_folder, write_private


class _Page(BaseModel):
    model_config = ConfigDict(frozen=True)

    spawned: dict[str, Spawned] = {}
    retired: tuple[str, ...] = ()
    """Agents that are declared and not to be started all the same."""


class Roster:
    """The agents that are declared for this machine and those that were spawned on it, without those that retired."""

    def __init__(self, file: Path, declared: Sequence[AgentSpec]) -> None:
        self._file = file
        self._declared = {agent.id: agent for agent in declared}
        self._writing = threading.Lock()
        self._page = self._read()

    def agents(self) -> list[AgentSpec]:
        """Whom to keep alive."""
        page = self._page
        declared = [agent for agent in self._declared.values() if agent.id not in page.retired]
        return declared + [one.agent for one in page.spawned.values() if one.agent_id not in self._declared]

    def spawned(self, agent_id: str) -> Spawned | None:
        """How this agent was spawned, if it was."""
        return self._page.spawned.get(agent_id)

    def all_spawned(self) -> list[Spawned]:
        """Every agent that was spawned here."""
        return list(self._page.spawned.values())

    def retired(self) -> list[AgentSpec]:
        """Those declared ones that somebody retired."""
        return [self._declared[agent_id] for agent_id in self._page.retired if agent_id in self._declared]

    def add(self, spawned: Spawned) -> None:
        """Keep an agent that was spawned here."""
        with self._writing:
            retired = tuple(agent_id for agent_id in self._page.retired if agent_id != spawned.agent_id)
            self._write(_Page(spawned={**self._page.spawned, spawned.agent_id: spawned}, retired=retired))

    def strike(self, agent_id: str) -> None:
        """Keep an agent no more, also after the next start."""
        with self._writing:
            spawned = {name: one for name, one in self._page.spawned.items() if name != agent_id}
            own = {agent_id} if agent_id in self._declared else set()
            self._write(_Page(spawned=spawned, retired=tuple(sorted({*self._page.retired, *own}))))

    def reinstate(self, agent_id: str) -> AgentSpec | None:
        """Keep a declared agent again that was retired; nothing if there is no such one."""
        with self._writing:
            if agent_id not in self._page.retired or agent_id not in self._declared:
                return None
            retired = tuple(other for other in self._page.retired if other != agent_id)
            self._write(self._page.model_copy(update={"retired": retired}))
            return self._declared[agent_id]

    def _read(self) -> _Page:
        try:
            return _Page.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _Page()
        except ValueError as error:
            raise StateFolderUnusable(f"{self._file} cannot be read: {error}; repair or remove it") from None

    def _write(self, page: _Page) -> None:
        make_folder(self._file.parent)
        write_private(self._file, page.model_dump_json(indent=2) + "\n")
        self._page = page
