"""What of a machine is in a backup: no secret travels, no link is followed, and a database is as at one moment."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from torch_tasks.backup import machine_files
from torch_tasks.backup.machine_files import read_all, secrets, what_travels
from torch_tasks.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path / "config"))
    return Settings(state_dir=tmp_path / "state", keys_dir=tmp_path / "state" / "keys")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_is_secret_is_among_the_sealed_and_does_not_travel(settings: Settings, tmp_path: Path) -> None:
    state = settings.state
    for secret in (state.keys / "root.key", state.tokens, state.server_token, state.push_key, state.joined):
        write(secret, "secret")
    write(tmp_path / "config" / "torch.toml", "broker_url = 'redis://:secret@host'")
    write(tmp_path / "config" / "policy.toml", "enabled = true")
    write(state.holds, "{}")
    write(state.crossings / "eu" / "waiting" / "1.json", "{}")
    write(state.crossings / "eu" / "lock", "")
    plain = dict(read_all([*what_travels(settings), *machine_files.configuration()]))
    assert plain == {
        "holds.json": b"{}",
        "crossings/eu/waiting/1.json": b"{}",
        "config/policy.toml": b"enabled = true",
    }
    sealed = dict(read_all(secrets(settings)))
    assert set(sealed) == {
        *("keys/root.key", "tokens.json", "server.token", "push.pem", "joined.json", "config/torch.toml"),
    }


def test_an_agents_journal_and_attempts_are_in_it_and_what_its_program_keeps_is_not(settings: Settings) -> None:
    folder = settings.state.agent("dev-1")
    for name in ("journal.json", "runs/t1.1/account.json", "program/runs/t1.1/output", "mail/m1"):
        write(folder / name, name)
    for name in ("home/.ssh/id", "program/session", "tmp/x", "lock"):
        write(folder / name, "its own")
    found = dict(read_all(what_travels(settings)))
    assert set(found) == {
        *("agents/dev-1/journal.json", "agents/dev-1/runs/t1.1/account.json"),
        *("agents/dev-1/program/runs/t1.1/output", "agents/dev-1/mail/m1"),
    }


def test_no_link_is_followed(settings: Settings, tmp_path: Path) -> None:
    write(tmp_path / "secret" / "file", "secret")
    folder = settings.state.agent("dev-1")
    write(folder / "journal.json", "{}")
    (folder / "mail").symlink_to(tmp_path / "secret")
    (folder / "runs").mkdir()
    (folder / "runs" / "t1.1").symlink_to(tmp_path / "secret")
    (folder / "runs" / "file").symlink_to(tmp_path / "secret" / "file")
    assert dict(read_all(what_travels(settings))) == {"agents/dev-1/journal.json": b"{}"}


def test_a_database_is_copied_with_what_is_not_in_its_file_yet(settings: Settings, tmp_path: Path) -> None:
    settings.state.path.mkdir()
    with closing(sqlite3.connect(settings.state.ledger, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL").fetchall()
        writer.execute("CREATE TABLE tasks (id TEXT)")
        writer.execute("INSERT INTO tasks VALUES ('t1')")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO tasks VALUES ('not yet')")
        copy = dict(read_all(what_travels(settings)))["ledger.sqlite"]
    (tmp_path / "copy").write_bytes(copy)
    with closing(sqlite3.connect(tmp_path / "copy")) as found:
        assert found.execute("SELECT id FROM tasks").fetchall() == [("t1",)]
    assert [one.name for one in settings.state.path.iterdir() if one.name.startswith(".copy")] == []
