"""An agent's pane gets what is on a list of its worker's environment, and nothing of Torch's that is not for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.model.agent import AgentInfo, AgentSpec
from torch_tasks.model.fields import now
from torch_tasks.settings import Settings
from torch_tasks.system.environment import USUAL, allowed
from torch_tasks.workers.host.pane_environment import pane_environment
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.kind import program_of

SECRETS = {
    "TORCH_BROKER_URL": "redis://:secret@broker",
    "TORCH_NODE": "node-a",
    "CELERY_BROKER_URL": "redis://:secret@broker",
    "FLOWER_BASIC_AUTH": "a:b",
    "TMUX": "/tmp/tmux,1,0",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "GITHUB_TOKEN": "secret",
    "DATABASE_URL": "postgres://user:secret@host",
    "PATHS": "no prefix of a listed name",
}
USERS = {
    "PATH": "/bin", "HOME": "/me", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TERM": "xterm", "SHELL": "/bin/zsh",
    "https_proxy": "http://proxy", "XDG_CONFIG_HOME": "/me/.config", "NODE_EXTRA_CA_CERTS": "/ca.pem",
}  # fmt: skip


def test_a_pane_gets_what_is_usual_and_no_secret() -> None:
    assert allowed({**SECRETS, **USERS}, USUAL) == USERS


def test_more_is_listed_by_name_or_by_its_beginning() -> None:
    listed = (*USUAL, "GITHUB_TOKEN", "AWS_*")
    assert allowed(SECRETS, listed) == {"GITHUB_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}


def test_no_list_lets_in_what_is_torchs_own() -> None:
    assert allowed(SECRETS, ["*"]).keys() == SECRETS.keys() - {
        "TORCH_BROKER_URL", "TORCH_NODE", "CELERY_BROKER_URL", "FLOWER_BASIC_AUTH", "TMUX"
    }  # fmt: skip
    assert allowed(SECRETS, ["TORCH_BROKER_URL", "TORCH_*"]) == {}


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("claude", "ANTHROPIC_API_KEY"),
        ("claude", "CLAUDE_CONFIG_DIR"),
        ("codex", "OPENAI_API_KEY"),
        ("codex", "CODEX_HOME"),
        ("gemini", "GEMINI_API_KEY"),
        ("gemini", "GOOGLE_GEMINI_BASE_URL"),
        ("opencode", "OPENCODE_CONFIG"),
        ("opencode", "ANTHROPIC_API_KEY"),
        ("aider", "OPENAI_API_BASE"),
        ("aider", "AIDER_MODEL"),
        ("acp", "GEMINI_API_KEY"),
    ],
)
def test_a_kinds_program_gets_its_own_keys(kind: str, key: str) -> None:
    assert allowed({key: "k", **SECRETS}, kind_config(kind).from_environment) == {key: "k"}


def test_a_shell_gets_no_key() -> None:
    assert kind_config("shell").from_environment == ()


def test_a_kind_of_ones_own_adds_to_the_list_of_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "bedrock.toml").write_text('base = "claude"\nfrom_environment = ["AWS_*"]\n')
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    assert {"AWS_*", "ANTHROPIC_*"} <= set(kind_config("bedrock").from_environment)


def test_the_whole_environment_has_the_desk_and_nothing_else_of_torchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SECRETS, **USERS, "MY_KEY": "mine", "TORCH_CONFIG_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    spec = AgentSpec(id="qa-1", role="qa", kind="shell")
    kind = program_of(spec, tmp_path, tmp_path)
    info = AgentInfo(
        agent_id="qa-1", role="qa", kind="shell", node="n", host="h", pid=1, incarnation=7, workdir="/",
        tmux_socket="/t", started_at=now(),
    )  # fmt: skip
    chosen = Settings(state_dir=tmp_path, pane_environment=("MY_KEY",))
    found = pane_environment(kind, info, tmp_path, chosen)
    assert {name: value for name, value in found.items() if name.startswith("TORCH_")} == {
        "TORCH_AGENT_ID": "qa-1",
        "TORCH_INCARNATION": "7",
        "TORCH_STATE_DIR": str(tmp_path),
        "TORCH_CONFIG_DIR": str(tmp_path),
        "TORCH_DESK": str(tmp_path / "desk" / "socket"),
        "TORCH_DESK_SECONDS": "60",
    }
    assert found["MY_KEY"] == "mine"
    assert found["GIT_TERMINAL_PROMPT"] == "0", "what the kind says"
    assert found["PATH"].startswith("/bin:")
    assert not [name for name, value in found.items() if "secret" in value]
