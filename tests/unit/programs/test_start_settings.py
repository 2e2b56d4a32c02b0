"""What a program is told at its start, so that it need not ask, and what of its user's is left as it is."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import pytest

from torch_tasks.model.agent import AgentSpec
from torch_tasks.workers.programs.claude import Claude
from torch_tasks.workers.programs.codex.program import Codex
from torch_tasks.workers.programs.config import KindConfig, kind_config
from torch_tasks.workers.programs.gemini import Gemini
from torch_tasks.workers.programs.kind import AgentKind
from torch_tasks.workers.programs.opencode.program import OpenCode

_Kind = TypeVar("_Kind", bound=AgentKind)


@pytest.fixture(autouse=True)
def no_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Briefings without what others noted on the project, which lies on a broker."""
    monkeypatch.setattr("torch_tasks.workers.programs.prompt._project_notes", lambda workdir: [])


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
    (folder / "program").mkdir(parents=True)
    work.mkdir()
    return kind(config, AgentSpec(id="dev-1", role="developer", kind="codex"), folder, work)


def codex_settings(config: KindConfig, home: Path) -> dict[str, Any]:
    """The settings, by their names, which its program, its server and a program without one are given alike."""
    made(Codex, config, home).command()
    lines = (home / "agent" / "program" / "commands").read_text().splitlines()
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


def gemini_settings(config: KindConfig, home: Path) -> dict[str, Any]:
    """The settings that it gets."""
    gemini = made(Gemini, config, home)
    gemini.events.mkdir()
    gemini.prepare()
    given: dict[str, Any] = json.loads((gemini.home / ".gemini" / "settings.json").read_text())
    return given


def gemini_auth(home: Path, settings: str, monkeypatch: pytest.MonkeyPatch, **variables: str) -> str | None:
    """How it logs in, by the settings that it gets."""
    file = home / ".gemini" / "settings.json"
    file.parent.mkdir()
    file.write_text(settings)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    given = gemini_settings(kind_config("gemini"), home)
    assert file.read_text() == settings
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


def without_tools(kind: str) -> KindConfig:
    """A user's kind that leaves out Torch's tools."""
    return kind_config(kind).model_copy(update={"tools": False})


def is_the_server(words: list[str]) -> bool:
    """Whether this command starts the server of Torch's tools, with this very Torch."""
    return words[0] == sys.executable and words[words.index("torch_tasks.cli") + 1] == "mcp"


def claude_start(config: KindConfig, home: Path) -> tuple[list[str], dict[str, Any], str]:
    """Its command, the settings that it gets, and its briefing."""
    claude = made(Claude, config, home)
    claude.prepare()
    words = claude.command()
    settings = json.loads(Path(words[words.index("--settings") + 1]).read_text())
    return words, settings, claude.briefing_file.read_text()


def test_claude_gets_torchs_tools_beside_its_users_and_need_not_ask_for_them(home: Path) -> None:
    words, settings, briefing = claude_start(kind_config("claude"), home)
    file = Path(words[words.index("--mcp-config") + 1])
    assert words[words.index(str(file)) + 1].startswith("--"), "the option takes all words up to the next one"
    assert file.parent == home / "agent" / "program"
    [(name, server)] = json.loads(file.read_text())["mcpServers"].items()
    assert is_the_server([server["command"], *server["args"]])
    assert f"mcp__{name}" in settings["permissions"]["allow"]
    assert "--strict-mcp-config" not in words
    assert "tools of the MCP server" in briefing


def test_codex_gets_them_by_its_command_line(home: Path) -> None:
    settings = codex_settings(kind_config("codex"), home)
    assert is_the_server([settings["mcp_servers.torch.command"], *settings["mcp_servers.torch.args"]])
    assert settings["mcp_servers.torch.default_tools_approval_mode"] == "approve"
    assert "TORCH_AGENT_ID" in settings["mcp_servers.torch.env_vars"]
    assert "tools of the MCP server" in settings["developer_instructions"]


def test_gemini_gets_them_in_its_own_settings(home: Path) -> None:
    own = home / ".gemini" / "settings.json"
    own.parent.mkdir()
    own.write_text('{"mcpServers": {"mine": {"command": "x"}}, "mcp": {"allowed": ["mine"]}}')
    given = gemini_settings(kind_config("gemini"), home)
    assert given["mcpServers"]["mine"] == {"command": "x"}
    server = given["mcpServers"]["torch"]
    assert is_the_server([server["command"], *server["args"]])
    assert server["trust"] is True
    assert given["mcp"]["allowed"] == ["mine", "torch"]
    assert "torch" not in own.read_text()


def opencode_settings(config: KindConfig, home: Path) -> dict[str, Any]:
    """The settings that it gets."""
    opencode = made(OpenCode, config, home)
    opencode.prepare()
    given: dict[str, Any] = json.loads(opencode.environment()["OPENCODE_CONFIG_CONTENT"])
    return given


def test_opencode_gets_them_in_its_environment(home: Path) -> None:
    given = opencode_settings(kind_config("opencode"), home)
    assert is_the_server(given["mcp"]["torch"]["command"])
    assert given["permission"]["torch_*"] == "allow"
    assert given["permission"]["edit"] == "ask"


def test_a_kind_may_leave_them_out(home: Path) -> None:
    words, settings, briefing = claude_start(without_tools("claude"), home / "claude")
    assert "--mcp-config" not in words
    assert not [rule for rule in settings["permissions"]["allow"] if "mcp" in rule]
    assert "MCP" not in briefing
    assert not [name for name in codex_settings(without_tools("codex"), home / "codex") if "mcp" in name]
    assert "mcpServers" not in gemini_settings(without_tools("gemini"), home / "gemini")
    assert "mcp" not in opencode_settings(without_tools("opencode"), home / "opencode")
