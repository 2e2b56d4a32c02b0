"""The first configuration that ``torch-tasks init`` writes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from torch_tasks.cli.init import init
from torch_tasks.errors import TorchError
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.task import Permissions
from torch_tasks.workers.git.policy import GitPolicy
from torch_tasks.workers.programs.config import kind_config


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration folder, which does not exist yet, on a machine that has Codex alone."""
    program = tmp_path / "bin" / "codex"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config"


def run(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(init, list(words), input=typed)


def agents_in(config: Path) -> list[AgentSpec]:
    return [AgentSpec(**fields) for fields in tomllib.loads((config / "torch.toml").read_text())["agents"]]


def test_without_questions_it_takes_the_program_that_is_there(config: Path) -> None:
    done = run("--yes")
    assert done.exit_code == 0, done.output
    assert [(agent.id, agent.kind, agent.workdir) for agent in agents_in(config)] == [
        ("dev-1", "night", str(config.parent)),
        ("dev-2", "night", str(config.parent)),
    ]
    kind = kind_config("night")
    assert (kind.base, kind.command[0], kind.permissions.mode) == ("codex", "codex", Permissions.ASK)
    assert "Bash(git push*)" in kind.permissions.deny
    policy = GitPolicy.model_validate(tomllib.loads((config / "git.toml").read_text())).of("developer")
    assert (policy.enabled, policy.worktree, policy.tag) == (True, True, True)


def test_it_asks_for_program_folder_and_number(config: Path) -> None:
    folder = config.parent / 'a "place"'
    folder.mkdir()
    done = run(typed=f"shell\n/nowhere/at/all\n{folder}\n3\n")
    assert done.exit_code == 0, done.output
    assert "/nowhere/at/all is no folder" in done.output
    assert [(agent.id, agent.kind, agent.workdir) for agent in agents_in(config)] == [
        (f"dev-{number}", "shell", str(folder)) for number in (1, 2, 3)
    ]
    assert not (config / "agents").exists()


@pytest.mark.parametrize(("program", "shell"), [("gemini", "Shell"), ("opencode", "bash"), ("acp", "execute")])
def test_the_permissions_name_the_shell_as_the_program_does(config: Path, program: str, shell: str) -> None:
    done = run(typed=f"{program}\n\n\n")
    assert done.exit_code == 0, done.output
    kind = tomllib.loads((config / "agents" / "night.toml").read_text())
    assert (kind["base"], kind["permissions"]["deny"]) == (program, [f"{shell}(git push*)", f"{shell}(sudo *)"])


def test_what_exists_is_never_overwritten(config: Path) -> None:
    config.mkdir()
    (config / "git.toml").write_text("# mine\n")
    done = run("--yes")
    assert isinstance(done.exception, TorchError)
    assert f"nothing was written: {config / 'git.toml'} exists already" in str(done.exception)
    assert [(file.name, file.read_text()) for file in config.rglob("*")] == [("git.toml", "# mine\n")]
