"""The box of one agent: decided, built, and put around its program and the checks of its tasks."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from torch_tasks.errors import SandboxRefused
from torch_tasks.model.sandbox import Network
from torch_tasks.settings import Settings
from torch_tasks.state_folder import LOGINS, PROXY
from torch_tasks.system.environment import USUAL, allowed
from torch_tasks.system.loops import Loop
from torch_tasks.workers.programs.kind import AgentKind, boxing_of, network_of
from torch_tasks.workers.sandbox.ability import why_not
from torch_tasks.workers.sandbox.agent_box import Inhabitant, agent_box, boxed, prepare, shared_logins
from torch_tasks.workers.sandbox.box import Box
from torch_tasks.workers.sandbox.decision import Boxing
from torch_tasks.workers.sandbox.proxy import HostProxy
from torch_tasks.workers.sandbox.shared_logins import LOOK_SECONDS, SharedLogins

log = logging.getLogger(__name__)


class Walls:
    """What is around one agent's programs."""

    def __init__(self, folder: Path, kind: AgentKind, settings: Settings) -> None:
        self._kind = kind
        self._settings = settings
        self._proxy: HostProxy | None = None
        self._logins: SharedLogins | None = None
        config = kind.config
        listed = (*USUAL, *settings.pane_environment, *config.from_environment)
        self._who = Inhabitant(
            agent_id=kind.agent_id,
            folder=folder,
            paths=config.box,
            command=config.command[0],
            network=self.network,
            variables={**allowed(os.environ, listed), **config.environment},
        )

    @property
    def network(self) -> Network:
        """What the agent's programs reach."""
        return network_of(self._kind.spec, self._settings)

    def open_network(self) -> None:
        """Have a program in a box reach the hosts on its list, as long as this process lives."""
        if self.network in ("all", "none") or self._proxy:
            return
        self._proxy = HostProxy(self._who.folder / PROXY, self.network, self._note_refusal)

    def _note_refusal(self, place: str) -> None:
        log.warning("%s: its program may not reach %s: network = %s", self._kind.agent_id, place, self.network)

    def decide(self, folder: Path) -> Boxing:
        """Whether a program in this folder is boxed; :class:`SandboxRefused` if it must be, and cannot."""
        boxing = boxing_of(self._kind.spec, self._settings, lambda: why_not() or self.why_not_in(folder))
        if not boxing.is_boxed:
            log.warning("%s: its program is %s", self._kind.agent_id, boxing.in_words)
        return boxing

    def why_not_in(self, folder: Path) -> str | None:
        """Why no box can be built around this folder; None if one can."""
        try:
            self.box(folder)
        except SandboxRefused as refused:
            return str(refused)
        return None

    def box(self, folder: Path) -> Box:
        """The box of a program that works in this folder."""
        return agent_box(self._who, folder, self._settings)

    def build(self, folder: Path) -> Box:
        """The same, with all that it shows made, and its way to the network open."""
        self.open_network()
        box = self.box(folder)
        prepare(box, self._who)
        self._share_logins(box)
        return box

    def _share_logins(self, box: Box) -> None:
        """Have the program find its user's logins, and each of both what the other has renewed, while this lives."""
        files = shared_logins(self._who, box)
        if self._logins is None and files:
            self._logins = SharedLogins(files, self._who.folder / LOGINS)
            self._carrying = Loop("logins", self._logins.carry, pause=LOOK_SECONDS, delay=LOOK_SECONDS)
            self._carrying.start()
        if self._logins:
            self._logins.carry(starts=True)

    def around(self, box: Box, command: Sequence[str]) -> list[str]:
        """The command for the pane that runs this command in the box."""
        return boxed(box, self._who, command, at_terminal=True, is_shell=not self._kind.is_conversational)

    def around_check(self, folder: Path, command: Sequence[str]) -> list[str]:
        """The command that runs the check of a task in a box like that of the agent's program."""
        return boxed(self.build(folder), self._who, command, at_terminal=False, is_shell=True)
