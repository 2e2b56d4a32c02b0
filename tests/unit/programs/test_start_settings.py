"""What a program is told at its start, so that it need not ask, and what of its user's is left as it is."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import pytest

from torch_tasks.model.agent import AgentSpec
from torch_tasks.workers.programs.codex.program import Codex
from torch_tasks.workers.programs.config import KindConfig, kind_config
from torch_tasks.workers.programs.gemini import Gemini
from torch_tasks.workers.programs.kind import AgentKind

_Kind = TypeVar("_Kind", bound=AgentKind)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user of all programs."""
    for name in ("CODEX_HOME", "GEMINI_CLI_HOME", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def made(kind: type[_Kind], config: KindConfig, home: Path) -> _Kind:
    """The driver of an agent that works in ``work``."""
    folder, work = home / "agent", home / "work"
    folder.mkdir()
    work.mkdir()
    return kind(config, AgentSpec(id="dev-1", role="developer", kind="codex"), folder, work)


def codex_settings(config: KindConfig, home: Path) -> dict[str, Any]:
    """The settings, by their names, which its program, its server and a program without one are given alike."""
    made(Codex, config, home).command()
    lines = (home / "agent" / "commands").read_text().splitlines()
    commands = [shlex.split(shlex.split(line.partition("=")[2])[0]) for line in lines]
    given, *others = [[words[at + 1] for at, word in enumerate(words) if word == "-c"] for words in commands]
    assert others[0] == others[1]
    assert given == ['approval_policy="on-request"', *others[0]]  # the others say it in a flag of their own
    return {name: tomllib.loads(f"it = {value}")["it"] for name, _, value in (one.partition("=") for one in given)}


def test_codex_is_told_to_trust_its_folder_alone(home: Path) -> None:
    settings = codex_settings(kind_config("codex"), home)
    assert settings["projects"] == {str(home / "work"): {"trust_level": "trusted"}}
    assert settings["notice.hide_rate_limit_model_nudge"] is True
    assert not (home / ".codex").exists()


@pytest.mark.parametrize("place", [".codex", "elsewhere"])
def test_what_its_user_has_decided_on_the_folder_stays(home: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place != ".codex":
        monkeypatch.setenv("CODEX_HOME", str(home / place))
    (home / place).mkdir()
    (home / place / "config.toml").write_text(f'[projects."{home}/work"]\ntrust_level = "untrusted"\n')
    assert "projects" not in codex_settings(kind_config("codex"), home)


def test_a_users_kind_adds_settings_of_its_own(home: Path) -> None:
    own = {"model_reasoning_effort": "low", "tui": {"theme": "a = b"}, "sandbox_workspace_write": {"roots": ["/srv"]}}
    settings = codex_settings(kind_config("codex").model_copy(update={"settings": own}), home)
    assert settings["model_reasoning_effort"] == "low"
    assert (settings["tui.theme"], settings["sandbox_workspace_write.roots"]) == ("a = b", ["/srv"])


def gemini_auth(home: Path, settings: str, monkeypatch: pytest.MonkeyPatch, **variables: str) -> str | None:
    """How it logs in, by the settings that it gets."""
    file = home / ".gemini" / "settings.json"
    file.parent.mkdir()
    file.write_text(settings)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch_tasks.workers.programs.gemini.briefing", lambda spec: "")
    gemini = made(Gemini, kind_config("gemini"), home)
    gemini.events.mkdir()
    gemini.prepare()
    assert file.read_text() == settings
    given = json.loads((gemini.home / ".gemini" / "settings.json").read_text())
    auth: dict[str, str] = given.get("security", {}).get("auth", {})
    return auth.get("selectedType")


def test_gemini_uses_the_key_of_the_environment_if_its_user_has_not_chosen(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gemini_auth(home, "{}", monkeypatch, GEMINI_API_KEY="sk-1") == "gemini-api-key"


@pytest.mark.parametrize(
    ("settings", "variables", "auth"),
    [
        ("{}", {}, None),
        ('{"security": {"auth": {"selectedType": "oauth-personal"}}}', {"GEMINI_API_KEY": "sk-1"}, "oauth-personal"),
    ],
)
def test_gemini_is_not_told_what_its_user_has_to_choose(
    home: Path, settings: str, variables: dict[str, str], auth: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gemini_auth(home, settings, monkeypatch, **variables) == auth
