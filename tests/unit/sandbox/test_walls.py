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
from torch_tasks.workers.programs.kind import boxing_of, program_of
from torch_tasks.workers.sandbox.box import Use


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


@pytest.mark.parametrize("network", ["none", "api.example"])
def test_a_program_with_a_port_of_its_own_needs_all_of_the_network(home: Path, network: str) -> None:
    spec = AgentSpec(id="dev-1", role="developer", kind="opencode", network=network)
    machine = Settings(state_dir=home.parent / "state", sandbox="auto")
    with pytest.raises(SandboxRefused, match=f"dev-1 cannot start: .* at a port .* network = {network} .* over acp"):
        boxing_of(spec, machine, lambda: None)
    assert boxing_of(spec.model_copy(update={"network": "all"}), machine, lambda: None).is_boxed
    assert boxing_of(spec.model_copy(update={"kind": "acp"}), machine, lambda: None).is_boxed
    assert not boxing_of(spec.model_copy(update={"sandbox": "never"}), machine, lambda: None).is_boxed


def test_keys_and_secrets_are_hidden_wherever_the_settings_have_them(home: Path) -> None:
    shown = home.parent / "srv"
    secrets = {name: shown / name for name in ("broker_key", "server_key", "token_file", "oidc_client_secret_file")}
    (shown / "keys").mkdir(parents=True)
    for file in (shown / "keys/root.key", *secrets.values()):
        file.write_text("a secret")
    spec = AgentSpec(id="dev-1", role="developer", kind="shell")
    machine = Settings(
        state_dir=home.parent / "state", keys_dir=shown / "keys", sandbox_readable=(str(shown),), **secrets
    )
    folder = home.parent / "agent"
    box = Walls(folder, program_of(spec, folder, home), machine).box(home / "project")
    for secret in (shown / "keys/root.key", *secrets.values()):
        wall = box.wall_around(secret)
        assert wall, secret
        assert wall.hides, secret
    around = box.wall_around(shown / "data")
    assert around
    assert around.use is Use.READ
