"""A kind that is based on another one says only what is different."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_tasks.errors import InvalidSettings
from torch_tasks.models import AgentSpec
from torch_tasks.permissions import Permissions
from workers.agents.claude import Claude
from workers.agents.config import KindConfig, kind_config
from workers.agents.kinds import program_of


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a user's own kinds."""
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    (tmp_path / "agents").mkdir()
    kind_config.cache_clear()
    yield tmp_path / "agents"
    kind_config.cache_clear()


def test_a_kind_takes_from_its_base_what_it_does_not_say(agents: Path, tmp_path: Path) -> None:
    shipped = kind_config("claude")
    (agents / "night.toml").write_text(
        """
        base = "claude"
        model = "haiku"
        [environment]
        EXTRA = "1"
        [permissions]
        mode = "allow"
        deny = ["Bash(git push*)"]
        [[dialogs]]
        pattern = 'A new dialog'
        keys = ["Enter"]
        """
    )
    own = kind_config("night")
    assert (own.model, own.permissions.mode, own.permissions.deny) == ("haiku", Permissions.ALLOW, ("Bash(git push*)",))
    assert own.environment == {**shipped.environment, "EXTRA": "1"}
    assert own.dialogs[1:] == shipped.dialogs
    assert (own.command, own.composer, own.rules) == (shipped.command, shipped.composer, shipped.rules)
    program = program_of(AgentSpec(id="dev-1", role="developer", kind="night"), tmp_path, tmp_path)
    assert isinstance(program, Claude)
    assert program.account == "claude"


def test_a_file_of_the_same_name_is_based_on_the_shipped_one(agents: Path) -> None:
    (agents / "claude.toml").write_text('base = "claude"\naccount = "my-company"\n')
    (agents / "cheap.toml").write_text('base = "claude"\nmodel = "haiku"\n')
    own, further = kind_config("claude"), kind_config("cheap")
    assert (own.account, own.command[0], own.program) == ("my-company", "claude", "claude")
    assert (further.account, further.model, further.program) == ("my-company", "haiku", "claude")


@pytest.mark.parametrize("base", ["nonesuch", "second"])
def test_a_base_that_leads_nowhere_is_refused(agents: Path, base: str) -> None:
    (agents / "first.toml").write_text(f'base = "{base}"\n')
    (agents / "second.toml").write_text('base = "first"\n')
    with pytest.raises(InvalidSettings, match="is no other kind that there is"):
        kind_config("first")


def test_what_is_wrong_is_said_of_the_file_that_was_asked_for(agents: Path) -> None:
    (agents / "first.toml").write_text('base = "claude"\n[permissions]\nmode = "sometimes"\n')
    with pytest.raises(InvalidSettings, match=r"first\.toml: permissions\.mode"):
        kind_config("first")
    assert "base" not in KindConfig.model_fields
