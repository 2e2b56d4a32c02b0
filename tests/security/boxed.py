"""A machine whose agents are boxed, with an attacker among them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machine import Machine

from torch_tasks.workers.sandbox.ability import why_not


class BoxedMachine(Machine):
    """Its agent ``dev-1`` does what the test says; ``dev-2`` and the user's files are what it is after."""

    def __init__(self, **environment: str) -> None:
        super().__init__(TORCH_SANDBOX="always", **environment)
        self.home = self.folder / "home"
        self.mine, self.others = self.work / "mine", self.work / "others"
        for folder in (self.home / ".ssh", self.home / ".aws", self.folder / "config", self.mine, self.others):
            folder.mkdir(parents=True)
        (self.home / ".ssh/id_ed25519").write_text("a private key\n")
        (self.home / ".aws/credentials").write_text("a cloud's key\n")
        (self.home / ".bashrc").write_text("# the user's\n")
        (self.home / ".gitconfig").write_text("[user]\nname = Ann\nemail = ann@example.org\n")
        self.env |= {"HOME": str(self.home), "TORCH_CONFIG_DIR": str(self.folder / "config"), "A_SECRET": "hush"}
        self.configure()

    def configure(self, *more: str) -> None:
        """Declare both agents, and more."""
        agents = {"dev-1": self.mine, "dev-2": self.others}
        declared = '[[agents]]\nid = "{}"\nrole = "developer"\nworkdir = "{}"\n'
        lines = [declared.format(*agent) for agent in agents.items()]
        (self.folder / "config/torch.toml").write_text("\n".join([*more, *lines]))

    def attack(self, script: str, *words: str, code: int | None = None) -> str:
        """What dev-1 sees when it runs the script."""
        done = self.torch("run", "--agent", "dev-1", "--wait", "--timeout", "40", *words, script, code=code)
        return done.stdout + done.stderr

    def entry(self, agent_id: str) -> dict[str, object]:
        """The agent's entry in the registry."""
        listed: list[dict[str, object]] = json.loads(self.torch("agents", "--json").stdout)
        return next(one for one in listed if one["agent_id"] == agent_id)


@contextmanager
def boxed_machine(**environment: str) -> Iterator[BoxedMachine]:
    """One that runs, or a skip with the reason."""
    if why := why_not():
        if os.environ.get("TORCH_TEST_SANDBOX") == "required":
            pytest.fail(why)
        pytest.skip(why)
    machine = BoxedMachine(**environment)
    try:
        machine.torch("up", "--detach", "--no-beat", "--no-flower", seconds=120)
        yield machine
    finally:
        machine.torch("down", code=None)
        machine.close()


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
