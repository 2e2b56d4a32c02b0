"""Codex as an agent of the fleet, without a server beside its program."""

from __future__ import annotations

import pytest
from hosted import Hosted
from test_codex import Newcomer, WithCodex

from torch_tasks.state_folder import PROGRAM

pytestmark = pytest.mark.slow


class Typed(Newcomer):
    """A user who wants no server."""

    @property
    def variables(self) -> dict[str, str]:
        return {**super().variables, "TORCH_CONFIG_DIR": str(self.folder / "torch")}

    def settle(self) -> None:
        super().settle()
        self.file("torch/agents/codex.toml", 'base = "codex"\ndoor = false\n')


class TestTypedCodex(WithCodex):
    """Its prompts are typed into the pane."""

    home = Typed

    def test_no_server_runs(self, agent: Hosted) -> None:
        assert agent.do("typed").evidence[0].detail == "hook Stop: the turn is over"
        assert not (agent.worker.folder / PROGRAM / "door").exists()
