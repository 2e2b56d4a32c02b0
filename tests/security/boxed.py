"""A machine whose agents are boxed, with an attacker among them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from machine import Machine

from torch_tasks.workers.sandbox.ability import why_not


class BoxedMachine(Machine):
    """Its agent ``dev-1`` does what the test says; ``dev-2`` and the user's files are what it is after."""

    def __init__(self, network: str = "all", **environment: str) -> None:
        """``network`` is what dev-2 reaches."""
        super().__init__(TORCH_SANDBOX="always", **environment)
        self.home = self.folder / "home"
        self.mine, self.others = self.work / "mine", self.work / "others"
        for folder in (self.home / ".ssh", self.home / ".aws", self.folder / "config", self.mine, self.others):
            folder.mkdir(parents=True)
        (self.home / ".ssh/id_ed25519").write_text("a private key\n")
        (self.home / ".aws/credentials").write_text("a cloud's key\n")
        (self.home / ".bashrc").write_text("# the user's\n")
        (self.home / ".gitconfig").write_text("[user]\nname = Ann\nemail = ann@example.org\n")
        subprocess.run(["git", "init", "-q", str(self.mine)], check=True)
        self.env |= {"HOME": str(self.home), "TORCH_CONFIG_DIR": str(self.folder / "config"), "A_SECRET": "hush"}
        self._declare(network)

    def _declare(self, network: str) -> None:
        agents = {"dev-1": self.mine, "dev-2": self.others}
        declared = '[[agents]]\nid = "{}"\nrole = "developer"\nworkdir = "{}"\n'
        lines = [*(declared.format(*agent) for agent in agents.items()), f'network = "{network}"\n']
        (self.folder / "config/torch.toml").write_text("\n".join(lines))

    def attack(self, script: str, *words: str, agent: str = "dev-1", code: int | None = None) -> str:
        """What the agent sees when it runs the script."""
        done = self.torch("run", "--agent", agent, "--wait", "--timeout", "40", *words, script, code=code)
        return done.stdout + done.stderr

    def entry(self, agent_id: str) -> dict[str, object]:
        """The agent's entry in the registry."""
        listed: list[dict[str, object]] = json.loads(self.torch("agents", "--json").stdout)
        return next(one for one in listed if one["agent_id"] == agent_id)


@contextmanager
def boxed_machine(network: str = "all", **environment: str) -> Iterator[BoxedMachine]:
    """One that runs, or a skip with the reason."""
    if why := why_not():
        if os.environ.get("TORCH_TEST_SANDBOX") == "required":
            pytest.fail(why)
        pytest.skip(why)
    machine = BoxedMachine(network, **environment)
    try:
        machine.torch("up", "--detach", "--no-beat", "--no-flower", seconds=120)
        yield machine
    finally:
        machine.torch("down", code=None)
        machine.close()
