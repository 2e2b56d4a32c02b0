"""A kind's TOML, by itself or laid over another."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.errors import InvalidSettings
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.task import Permissions
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.kind import program_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of kinds."""
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    kind_config.cache_clear()
    (tmp_path / "agents").mkdir()
    return tmp_path / "agents"


def account(kind: str, folder: Path) -> tuple[str, str | None]:
    """Which program drives an agent of the kind, and whose limits it shares."""
    program = program_of(AgentSpec(id="one-1", role="one", kind=kind), folder, folder)
    return type(program).__name__, program.account


def test_a_file_laid_over_another_says_only_what_is_different(folder: Path) -> None:
    theirs = kind_config("claude")
    (folder / "claude-work.toml").write_text(
        'base = "claude"\nmodel = "opus"\n'
        '[environment]\nCLAUDE_CONFIG_DIR = "/work"\n'
        '[permissions]\nmode = "allow"\n'
        '[[dialogs]]\npattern = "Really"\nkeys = ["y"]\n'
        '[[rules]]\nname = "mine"\nstate = "error"\npattern = "x"\n'
    )
    mine = kind_config("claude-work")
    assert mine.environment == {**theirs.environment, "CLAUDE_CONFIG_DIR": "/work"}
    assert (mine.model, mine.permissions.mode) == ("opus", Permissions.ALLOW)
    assert (mine.command, mine.composer, mine.answers) == (theirs.command, theirs.composer, theirs.answers)
    assert mine.dialogs[0].keys == ("y",)
    assert mine.dialogs[1:] == theirs.dialogs
    assert mine.rules[0].name == "mine"
    assert mine.rules[1:] == theirs.rules
    assert account("claude-work", folder) == ("Claude", "claude")


def test_a_file_of_the_same_name_is_laid_over_the_shipped_one_and_others_over_it(folder: Path) -> None:
    (folder / "codex.toml").write_text('base = "codex"\nmodel = "large"\naccount = "mine"\n')
    (folder / "codex-fast.toml").write_text('base = "codex"\nmodel = "small"\n')
    assert kind_config("codex").model == "large"
    assert (kind_config("codex-fast").model, kind_config("codex-fast").base) == ("small", "codex")
    assert account("codex-fast", folder) == ("Codex", "mine")


def test_a_program_of_ones_own_has_variants_too(folder: Path) -> None:
    (folder / "own.toml").write_text('command = ["own"]\n')
    (folder / "own-loud.toml").write_text('base = "own"\ncommand = ["own", "--loud"]\n')
    assert account("own-loud", folder) == ("Generic", "own")
    assert kind_config("own-loud").command == ("own", "--loud")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('base = "nobody"\n', "there is no agent kind 'nobody'"),
        ('base = "broken"\n', "is laid over 'broken', which is none of Torch's"),
        ('base = "circle"\n', "is laid over 'broken', which is laid over it"),
        ('base = "claude"\nmodle = "opus"\n', "modle"),
        ("base = 1\n", "base"),
    ],
)
def test_an_error_names_the_file(folder: Path, text: str, said: str) -> None:
    (folder / "broken.toml").write_text(text)
    (folder / "circle.toml").write_text('base = "broken"\n')
    with pytest.raises(InvalidSettings, match=said) as error:
        kind_config("broken")
    assert ".toml" in str(error.value)


def test_the_agents_folder_is_named_anywhere_in_an_argument(folder: Path, tmp_path: Path) -> None:
    (folder / "own.toml").write_text('command = ["own", "--log={folder}/log:{folder}/more", "--settings={hooks}"]\n')
    program, own = program_of(AgentSpec(id="one-1", role="one", kind="own"), tmp_path, tmp_path), tmp_path / "program"
    assert isinstance(program, CodingAgent)
    assert program.command() == ["own", f"--log={own}/log:{own}/more", f"--settings={own}/hooks.json"]
