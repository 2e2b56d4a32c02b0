"""Where a setting comes from, in which words a wrong one is refused, and that no secret is shown."""

from __future__ import annotations

import os
import re
import runpy
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from torch_tasks.errors import InvalidSettings
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.settings import Settings, settings
from torch_tasks.system.files import write_private

REPOSITORY = Path(__file__).parents[3]
Read = Callable[..., Settings]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Read]:
    """Reads the settings from this ``torch.toml`` and these variables, and from nothing else."""
    for name in list(os.environ):
        if name.startswith("TORCH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))

    def read(toml: str = "", **environment: str) -> Settings:
        (tmp_path / "torch.toml").write_text(toml)
        for name, value in {"TORCH_STATE_DIR": str(tmp_path / "state"), **environment}.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        return settings()

    yield read
    settings.cache_clear()


def refused(read: Read, *arguments: str, **environment: str) -> str:
    """The words in which settings are refused."""
    with pytest.raises(InvalidSettings) as caught:
        read(*arguments, **environment)
    return str(caught.value)


# ── where a value comes from ─────────────────────────────────────────────────────────────────────────────────────


def test_the_environment_beats_the_file_beats_the_default(read: Read) -> None:
    assert read().heartbeat_seconds == 5.0
    assert read("heartbeat_seconds = 2").heartbeat_seconds == 2.0
    assert read("heartbeat_seconds = 2", TORCH_HEARTBEAT_SECONDS="3").heartbeat_seconds == 3.0


def test_an_empty_variable_counts_as_unset(read: Read) -> None:
    assert read("heartbeat_seconds = 2", TORCH_HEARTBEAT_SECONDS="").heartbeat_seconds == 2.0


def test_the_chosen_folder_wins_over_the_home_folder(
    read: Read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "torch").mkdir(parents=True)
    (home / "torch" / "torch.toml").write_text('node = "from-home"')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    assert read('node = "from-chosen"').node == "from-chosen"
    monkeypatch.delenv("TORCH_CONFIG_DIR")
    assert read().node == "from-home"


def test_without_a_file_of_ones_own_the_shipped_one_counts(read: Read, tmp_path: Path) -> None:
    shipped = read(TORCH_CONFIG_DIR=str(tmp_path / "nowhere")).agents
    assert shipped == (AgentSpec(id="developer-1", role="developer", skills=("bash", "python")),)


def test_agents_are_tables_of_the_file(read: Read) -> None:
    toml = '[[agents]]\nid = "qa-1"\nrole = "QA"\nskills = ["b", "a"]\n[[agents]]\nid = "x"\nrole = "y"\n'
    assert read(toml).agents == (AgentSpec(id="qa-1", role="qa", skills=("a", "b")), AgentSpec(id="x", role="y"))


def test_paths_are_absolute(read: Read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/srv/me")
    assert read(TORCH_STATE_DIR="here").state_dir == tmp_path / "here"
    assert read(TORCH_STATE_DIR="~/there").state_dir == Path("/srv/me/there")


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORCH_HEARTBEAT_SECONDS", "often"),
        ("TORCH_HEARTBEAT_SECONDS", "0"),
        ("TORCH_HEARTBEAT_SECONDS", "nan"),
        ("TORCH_MAX_RETRIES", "-1"),
        ("TORCH_MAX_RETRIES", "1.5"),
        ("TORCH_FLOWER_PORT", "99999"),
        ("TORCH_ANSWER_LIMIT_BYTES", "10"),
        ("TORCH_NODE", "two words"),
        ("TORCH_BROKER_URL", "amqp://localhost"),
        ("TORCH_BROKER_URL", "redis://127.0.0.1:99999"),
        ("TORCH_BROKER_URL", "redis://127.0.0.1:many/0"),
        ("TORCH_AGENTS", '[{"id": "a"}]'),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(read: Read, name: str, value: str) -> None:
    assert f"cannot use these settings: {name}" in refused(read, **{name: value})


def test_two_agents_of_one_id_are_refused(read: Read) -> None:
    said = refused(read, '[[agents]]\nid = "qa-1"\nrole = "qa"\n[[agents]]\nid = "QA-1"\nrole = "developer"\n')
    assert "two agents have the id 'qa-1': qa-1:qa::shell and qa-1:developer::shell" in said


def test_a_wrong_value_of_the_file_is_named_too(read: Read) -> None:
    assert "torch.toml, line 2: heartbeat_seconds: " in refused(read, '# mine\nheartbeat_seconds = "x"')


def test_an_unknown_line_of_the_file_is_named(read: Read) -> None:
    said = refused(read, "hartbeat_seconds = 2")
    assert "torch.toml, line 1: hartbeat_seconds: is not a field that exists; did you mean heartbeat_seconds" in said


def test_a_file_that_is_no_toml_is_named_with_what_is_wrong(read: Read, tmp_path: Path) -> None:
    said = refused(read, "heartbeat_seconds = ")
    assert said.startswith(f"cannot read {tmp_path}/torch.toml: Invalid value")


def test_an_agent_must_not_count_as_offline_between_two_heartbeats(read: Read) -> None:
    said = refused(read, TORCH_HEARTBEAT_SECONDS="20")
    assert "TORCH_OFFLINE_SECONDS (15) must be longer than TORCH_HEARTBEAT_SECONDS (20)" in said


def test_a_variable_that_is_no_json_is_not_blamed_on_the_file(read: Read) -> None:
    said = refused(read, TORCH_AGENTS="dev-1:developer")
    assert "TORCH_AGENTS" in said
    assert "torch.toml" not in said


@pytest.mark.parametrize("name", ["TORCH_OFFLINE_SECONDS", "TORCH_RESULT_DAYS"])
def test_a_time_that_never_ends_is_refused(read: Read, name: str) -> None:
    assert name in refused(read, **{name: "inf"})


# ── the broker ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_broker_is_the_chosen_one_else_this_machines_own_else_none(read: Read) -> None:
    found = read()
    assert not found.broker().runs
    assert found.broker().socket == found.state_dir / "broker" / "sock"

    found.state_dir.mkdir()
    write_private(found.state.broker_address, '{"url": "unix://:pw@/s", "source": "torch-tasks up"}')
    assert found.broker().source == "torch-tasks up"
    assert found.broker().url.get_secret_value() == "unix://:pw@/s"

    assert found.broker().runs

    chosen = read(TORCH_BROKER_URL="redis://elsewhere:1/2")
    assert (str(chosen.broker()), chosen.broker().source) == ("redis://elsewhere:1/2", "TORCH_BROKER_URL")


def test_celerys_way_to_write_a_socket_is_accepted(read: Read) -> None:
    assert str(read(TORCH_BROKER_URL="redis+socket:///run/v.sock").broker()) == "unix:///run/v.sock"


SECRET = "s3cr3t"
URLS = {
    f"redis://:{SECRET}@host:6380/1": "redis://:***@host:6380/1",
    f"redis://user:{SECRET}@host:6380/1": "redis://user:***@host:6380/1",
    f"rediss://user:{SECRET}@host:6380/1": "rediss://user:***@host:6380/1",
    f"rediss://:{SECRET}@host/0": "rediss://:***@host/0",
    f"redis://user:{SECRET}%40x@host": "redis://user:***@host",
    f"redis://user:{SECRET}@{SECRET}@host/0": "redis://user:***@host/0",
    "redis://host:1/0": "redis://host:1/0",
}


@pytest.mark.parametrize(("url", "shown"), URLS.items())
def test_an_address_shows_everything_but_its_password(url: str, shown: str) -> None:
    assert str(BrokerAddress(url=SecretStr(url), source="TORCH_BROKER_URL")) == shown


@pytest.mark.parametrize("url", [url for url in URLS if SECRET in url])
def test_no_text_of_the_settings_shows_a_secret(read: Read, url: str) -> None:
    chosen = read(TORCH_BROKER_URL=url)
    address = chosen.broker()
    texts = [repr(chosen), str(chosen), chosen.model_dump_json(), repr(address), str(address), f"{address}"]
    assert not [text for text in [*texts, address.model_dump_json()] if SECRET in text]


@pytest.mark.parametrize(
    ("toml", "environment"),
    [
        ("", {"TORCH_BROKER_URL": f"amqp://user:{SECRET}@host"}),
        ("", {"TORCH_BROKER_URL": f"user:{SECRET}@host"}),
        ("", {"TORCH_BROKER_URL": f"redis://user:{SECRET}[@host"}),
        (f'broker_url = "amqp://:{SECRET}@host"', {}),
        (f'broker_url = "redis://:{SECRET}@host"\nnonsense = 1', {}),
    ],
)
def test_no_refusal_shows_a_secret(read: Read, toml: str, environment: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(toml, **environment)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def address(url: str) -> str:
    """How an address is shown."""
    return str(BrokerAddress(url=SecretStr(url), source="TORCH_BROKER_URL"))


@pytest.mark.parametrize(
    "url", [f"redis://host/0?password={SECRET}", f"redis://u:{SECRET}/x@host/0", f"redis://u:{SECRET}#x@host/0"]
)
def test_a_password_in_an_unusual_place_is_not_shown_either(url: str) -> None:
    assert SECRET not in address(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@[::1]:6379/0", "redis://:***@[::1]:6379/0"),
        ("unix://:pw@/run/redis.sock", "unix://:***@/run/redis.sock"),
        ("redis://:pw@host:port/0", "redis://:***@host:port/0"),
    ],
)
def test_an_unusual_address_is_shown_as_it_was_written(url: str, shown: str) -> None:
    assert address(url) == shown


# ── docs/settings.md ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    """What docs/generate_settings.py defines."""
    return runpy.run_path(str(REPOSITORY / "docs" / "generate_settings.py"))


def test_the_page_is_what_the_model_says(generator: dict[str, Any]) -> None:
    assert (REPOSITORY / "docs" / "settings.md").read_text() == generator["page"](), (
        "run python docs/generate_settings.py"
    )


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described_and_on_the_page(generator: dict[str, Any], name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith((".", ")"))
    assert f"| `TORCH_{name.upper()}` |" in generator["page"]()


def test_the_shipped_file_names_only_settings_that_exist(read: Read) -> None:
    assert read((REPOSITORY / "config" / "torch.toml").read_text()).agents


def test_the_directory_of_fleets_is_read_as_its_page_writes_it(read: Read) -> None:
    [toml] = re.findall(
        r"^```toml\n(.*?)^```$", (REPOSITORY / "docs" / "scale.md").read_text(), re.DOTALL | re.MULTILINE
    )
    [(name, door)] = read(toml).fleets.items()
    assert (name, door.server, str(door.token_file)) == ("eu", "https://torch.eu.example", "/etc/torch/eu.token")
    assert "TORCH_FLEETS" in refused(read, TORCH_FLEETS='{"e u": {"server": "http://x", "token_file": "/t"}}')
    assert "token_file" in refused(read, TORCH_FLEETS='{"eu": {"server": "http://x"}}')
