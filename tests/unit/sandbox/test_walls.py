"""Whether an agent's program is boxed in a folder around which no box can be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.errors import SandboxRefused
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.sandbox import SandboxMode
from torch_tasks.settings import Settings
from torch_tasks.workers.host import walls as module
from torch_tasks.workers.host.walls import Walls
from torch_tasks.workers.programs.kind import program_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(module, "why_not", lambda: None)  # as on a machine that has bubblewrap
    return home


def _walls(home: Path, mode: SandboxMode) -> Walls:
    folder = home.parent / "agent"
    spec = AgentSpec(id="dev-1", role="developer", kind="shell")
    return Walls(folder, program_of(spec, folder, home), Settings(state_dir=home.parent / "state", sandbox=mode))


def test_an_agent_in_its_users_home_starts_without_a_box_and_says_why(home: Path) -> None:
    boxing = _walls(home, "auto").decide(home)
    assert not boxing.is_boxed
    assert "holds the home" in boxing.in_words


def test_one_that_must_be_boxed_does_not_start_there(home: Path) -> None:
    with pytest.raises(SandboxRefused, match="holds the home"):
        _walls(home, "always").decide(home)


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_folder_below_the_home_has_a_box(home: Path, mode: SandboxMode) -> None:
    assert _walls(home, mode).decide(home / "project").is_boxed
