"""What has programs send their own telemetry to the user's collector, if the user wants that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import read_settings_anew
from pydantic import ValidationError

from torch_tasks.model.agent import AgentSpec
from torch_tasks.settings import Settings, settings
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.kind import network_of, program_of
from torch_tasks.workers.sandbox.proxy import is_allowed

SENDING = ("claude", "codex", "gemini")


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A user who wants it."""
    monkeypatch.setenv("TORCH_OTLP_ENDPOINT", "http://collector.example:4318/")
    monkeypatch.setenv("TORCH_PROGRAMS_TELEMETRY", "true")
    read_settings_anew()
    yield monkeypatch
    monkeypatch.undo()
    read_settings_anew()


def told(kind: str, folder: Path) -> str:
    """All that the program of a kind is told of the collector."""
    config = program_of(AgentSpec(id="a-1", role="a", kind=kind), folder, folder).config
    return f"{dict(config.environment)} {dict(config.settings)}"


@pytest.mark.parametrize("kind", SENDING)
def test_nothing_is_sent_unless_the_user_wants_it(kind: str, tmp_path: Path) -> None:
    config = program_of(AgentSpec(id="a-1", role="a", kind=kind), tmp_path, tmp_path).config
    assert config.environment == kind_config(kind).environment
    assert config.settings == kind_config(kind).settings
    assert not [name for name in config.environment if name.startswith("OTEL_")]


@pytest.mark.usefixtures("wanted")
@pytest.mark.parametrize("kind", SENDING)
def test_each_program_that_has_telemetry_is_told_of_the_collector(kind: str, tmp_path: Path) -> None:
    said = told(kind, tmp_path)
    assert "http://collector.example:4318" in said
    assert "4318//" not in said
    assert "{" + "endpoint}" not in said
    assert "OTEL_EXPORTER_OTLP_HEADERS" not in said  # the collector wants none


@pytest.mark.parametrize("kind", SENDING)
def test_what_the_collector_wants_as_a_token_is_in_no_command_line(
    kind: str, wanted: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted.setenv("TORCH_OTLP_HEADERS", "authorization=Bearer me")
    read_settings_anew()
    config = program_of(AgentSpec(id="a-1", role="a", kind=kind), tmp_path, tmp_path).config
    assert config.environment["OTEL_EXPORTER_OTLP_HEADERS"] == "authorization=Bearer me"
    assert "Bearer me" not in str(dict(config.settings))


@pytest.mark.parametrize("kind", SENDING)
def test_prompts_and_contents_of_tools_are_told_to_stay(kind: str, wanted: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = program_of(AgentSpec(id="a-1", role="a", kind=kind), tmp_path, tmp_path).config
    logged = {name: value for name, value in config.environment.items() if "_LOG_" in name}
    assert set(logged.values()) <= {"0", "false"}
    if kind == "codex":
        assert config.settings["otel"]["log_user_prompt"] is False


@pytest.mark.usefixtures("wanted")
def test_a_box_with_a_list_of_hosts_reaches_the_collector_too() -> None:
    listed = network_of(AgentSpec(id="a-1", role="a", kind="claude", network="api.example"), settings())
    assert is_allowed(listed, "collector.example", 4318)
    assert is_allowed(listed, "api.example", 443)
    assert not is_allowed(listed, "collector.example", 443)
    assert network_of(AgentSpec(id="a-1", role="a", kind="claude", network="none"), settings()) == "none"
    assert network_of(AgentSpec(id="a-1", role="a", kind="aider", network="api.example"), settings()) == "api.example"


def test_without_a_collector_it_cannot_be_wanted() -> None:
    with pytest.raises(ValidationError, match="otlp_endpoint"):
        Settings(programs_telemetry=True)
