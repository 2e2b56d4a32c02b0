"""`torch-tasks deploy` writes what lies in compose/, takes a fleet's settings over, and no secret."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from torch_tasks.cli.deploy import deploy
from torch_tasks.deploy.deployed_fleet import OF_ONE_MACHINE, DeployedFleet, toml
from torch_tasks.deploy.profiles import COMPOSE, KUBERNETES, SYSTEMD, Profile, files_of
from torch_tasks.errors import TorchError
from torch_tasks.settings import Settings, settings

REPOSITORYS = Path(__file__).resolve().parents[3] / "compose"
FOLDERS = [(SYSTEMD, REPOSITORYS / "systemd"), (COMPOSE, REPOSITORYS), (KUBERNETES, REPOSITORYS / "kubernetes")]
NODES = 2
"""Each profile, and where its default output lies."""


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing is set; its folder for configuration."""
    for name in [name for name in os.environ if name.startswith("TORCH_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(folder))
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path / "state"))
    settings.cache_clear()
    return folder


def files(profile: Profile, **given: Any) -> dict[str, str]:
    """What is written for a fleet of these settings."""
    return files_of(profile, DeployedFleet(Settings(**given), NODES))


def run(*words: str) -> Result:
    return CliRunner().invoke(deploy, list(words))


@pytest.mark.parametrize(("profile", "folder"), FOLDERS, ids=[profile.name for profile, _ in FOLDERS])
def test_what_lies_in_the_repository_is_its_default_output(profile: Profile, folder: Path) -> None:
    assert {name: (folder / name).read_text() for name in files(profile)} == files(profile)


def test_it_writes_them_says_what_is_next_and_overwrites_nothing(tmp_path: Path) -> None:
    out = tmp_path / "units"
    done = run("systemd", "--out", str(out))
    assert done.exit_code == 0
    assert {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} == set(files(SYSTEMD))
    assert f"  install -D -m 600 {out}/torch.env.example ~/.config/torch/torch.env" in done.output
    (out / "torch.toml").write_text("mine")
    done = run("systemd", "--out", str(out))
    assert isinstance(done.exception, TorchError)
    assert "--force overwrites" in str(done.exception)
    assert (out / "torch.toml").read_text() == "mine"
    assert run("systemd", "--out", str(out), "--force").exit_code == 0
    assert (out / "torch.toml").read_text() == files(SYSTEMD)["torch.toml"]


def test_the_settings_of_a_fleet_are_taken_over_as_they_are(config: Path) -> None:
    (config / "torch.toml").write_text(
        'max_retries = 5\nsandbox_network = ["api.example"]\nserver_host = "10.0.0.1"\n'
        'broker_url = "rediss://me:s3cret@broker.example:6379/0"\notlp_headers = "authorization=s3cret"\n'
        'notify_command = "curl https://s3cret.example"\n'
        "[budgets.claude]\ntokens_per_day = 5\n"
        '[[agents]]\nid = "a-1"\nrole = "qa"\nskills = ["sql", "c-2"]\nworkdir = "/srv/a"\n'
        '[[pools]]\nrole = "dev"\nmin = 1\nmax = 3\n'
    )
    done = run("systemd", "--out", str(config / "out"))
    assert done.exit_code == 0, done.exception
    written = (config / "out" / "torch.toml").read_text()
    (config / "torch.toml").write_text(written)
    read = Settings()
    assert (read.max_retries, read.sandbox_network, read.budgets["claude"].tokens_per_day) == (5, "api.example", 5)
    assert [(agent.id, agent.role, agent.skills, str(agent.workdir)) for agent in read.agents] == [
        ("a-1", "qa", ("c-2", "sql"), "/srv/a")
    ]
    assert [(pool.role, pool.min, pool.max) for pool in read.pools] == [("dev", 1, 3)]
    assert (read.server_host, read.broker_url) == ("127.0.0.1", None)
    assert "TORCH_BROKER_URL=rediss://broker.example:6379/0\n" in (config / "out" / "torch.env.example").read_text()
    assert "machine has its own: TORCH_BROKER_URL, TORCH_SERVER_HOST, TORCH_STATE_DIR" in done.output
    assert "add it where the secrets are: TORCH_NOTIFY_COMMAND, TORCH_OTLP_HEADERS" in done.output
    assert "s3cret" not in "".join(file.read_text() for file in (config / "out").iterdir())


def test_a_value_is_written_as_toml_reads_it() -> None:
    value = {"text": 'a "quoted" \\ line\n☂', "number": 1.5, "on": True, "list": [1, [2]], "of a": {"b": []}}
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value


def test_what_a_machine_has_for_itself_are_settings() -> None:
    assert set(Settings.model_fields) >= OF_ONE_MACHINE
