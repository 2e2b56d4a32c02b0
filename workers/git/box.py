"""The box of Torch's own git: what a repository's hooks and filters see and reach when Torch changes a tree."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch_tasks.errors import GitRefused, SandboxRefused
from torch_tasks.settings import Settings
from torch_tasks.state_folder import JOURNAL
from torch_tasks.workers.folders import AgentJournal
from torch_tasks.workers.git.environment import git_environment
from torch_tasks.workers.sandbox.ability import bubblewrap, why_not
from torch_tasks.workers.sandbox.agent_box import Inhabitant, arguments, git_box, launched, prepare
from torch_tasks.workers.sandbox.decision import Boxing
from torch_tasks.workers.sandbox.policy import BoxPaths

Launch = tuple[list[str], list[int]]
"""A command, and the numbers of the open files that it takes along."""
#: A key that signs commits is a person's, and not there.
SETTINGS = {"commit.gpgSign": "false", "tag.gpgSign": "false"}


@dataclass(frozen=True)
class GitBox:
    """The box of one agent's trees. It holds the agent's home, the tree with its repository, and no network.

    A hook may be any file of the tree, which the agent writes; so it gets no more than the agent's own program.
    """

    agent_id: str
    settings: Settings

    @classmethod
    def of(cls, agent_id: str, settings: Settings) -> GitBox | None:
        """None where the agent's program is in no box, either. :class:`GitRefused` where all must be, and cannot."""
        if settings.sandbox != "always" and not _is_boxed(agent_id, settings):
            return None
        why = why_not()
        if why and settings.sandbox == "always":
            raise GitRefused(f"git in the trees of {agent_id} must be boxed (TORCH_SANDBOX=always), and cannot: {why}")
        return None if why else cls(agent_id, settings)

    @contextmanager
    def around(self, tree: Path, added: Path | None, command: Sequence[str]) -> Iterator[Launch]:
        """How this command is run in the box. ``added`` is the tree that is about to be added."""
        who = Inhabitant(
            agent_id=self.agent_id,
            folder=self.settings.state.agent(self.agent_id),
            paths=BoxPaths(),
            command=command[0],
            network="none",
            variables=git_environment(),
        )
        try:
            box = git_box(who, tree, added, self.settings)
        except SandboxRefused as refused:
            if self.settings.sandbox == "always":
                raise GitRefused(f"git cannot change {tree}: {refused}") from refused
            yield [*command], []
            return
        prepare(box, who)
        with tempfile.TemporaryFile() as file:
            file.write(arguments(box).encode())
            file.flush()
            file.seek(0)
            inside = launched(box, who, command, at_terminal=False, is_shell=True)
            yield [bubblewrap(), "--args", str(file.fileno()), *inside], [file.fileno()]


def _is_boxed(agent_id: str, settings: Settings) -> bool:
    """Whether the agent's program is in a box, as its worker has noted; before it first was, as the settings say."""
    journal = AgentJournal.read(settings.state.agent(agent_id) / JOURNAL)
    if journal is None or not journal.sandbox:
        return settings.sandbox != "never"
    return Boxing.read(journal.sandbox).is_boxed
