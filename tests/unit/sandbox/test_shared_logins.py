"""A login that anybody renews, by renaming a new file over it or in place, reaches all who share it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from torch_tasks.workers.sandbox.inner_files import InnerFile
from torch_tasks.workers.sandbox.shared_logins import SharedLogins

SECOND_NS = 10**9


def login(token: str) -> str:
    return json.dumps({"token": token})


class Sharer:
    """An agent that shares the login of ``tmp_path``."""

    def __init__(self, home: Path, name: str) -> None:
        self.folder = home / name
        self.folder.mkdir()
        self.users = home / "user/.tool/auth.json"
        self.own = self.folder / "home/.tool/auth.json"
        (self.folder / "home").mkdir()
        self.host()

    def host(self) -> None:
        inner = InnerFile(self.folder / "home", Path(".tool/auth.json"))
        self.logins = SharedLogins({self.users: inner}, self.folder / "logins.json")
        self.logins.carry(starts=True)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """The user's login, which is some days old."""
    file = tmp_path / "user/.tool/auth.json"
    file.parent.mkdir(parents=True)
    file.write_text(login("first"))
    dated(file, -100_000)
    return file


@pytest.fixture
def agent(tmp_path: Path, users: Path) -> Sharer:
    return Sharer(tmp_path, "dev-1")


def dated(file: Path, seconds: float) -> None:
    moment = time.time_ns() + int(seconds * SECOND_NS)
    os.utime(file, ns=(moment, moment))


def by_renaming(file: Path, text: str) -> None:
    new = file.with_name(".new")
    new.write_text(text)
    new.replace(file)


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


@pytest.mark.parametrize("renew", [by_renaming, in_place])
def test_who_renews_it_renews_it_for_all(tmp_path: Path, agent: Sharer, renew: Callable[[Path, str], None]) -> None:
    other = Sharer(tmp_path, "dev-2")
    assert agent.own.read_text() == other.own.read_text() == login("first")
    assert agent.own.stat().st_mode & 0o777 == 0o600
    renew(agent.own, login("second"))
    dated(agent.own, -10)
    agent.logins.carry()
    other.logins.carry()
    assert agent.users.read_text() == other.own.read_text() == login("second")
    renew(agent.users, login("third"))
    agent.logins.carry()
    other.logins.carry()
    assert agent.own.read_text() == other.own.read_text() == login("third")
    assert list(agent.own.parent.iterdir()) == [agent.own]
    written = agent.users.stat()
    for one in (agent, other, agent):
        one.logins.carry()
    assert (agent.users.stat().st_ino, agent.users.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_it_is_carried_by_the_next_worker_too(agent: Sharer) -> None:
    by_renaming(agent.own, login("while no worker lived"))
    dated(agent.own, -10)
    agent.host()
    assert agent.users.read_text() == login("while no worker lived")


@pytest.mark.parametrize("text", ["", '{"token": "ha', "\n"])
def test_a_file_that_is_still_being_written_is_carried_nowhere(agent: Sharer, text: str) -> None:
    agent.own.write_text(text)
    dated(agent.own, -10)
    agent.logins.carry()
    assert agent.users.read_text() == login("first")
    by_renaming(agent.own, login("second"))  # a moment ago
    agent.logins.carry()
    assert agent.users.read_text() == login("first")
    agent.users.write_text(text)
    dated(agent.users, 5)
    agent.logins.carry()
    assert agent.own.read_text() == login("second")


def test_a_login_from_the_future_does_not_stay_the_newest(agent: Sharer) -> None:
    agent.own.write_text(login("second"))
    dated(agent.own, 10_000)
    agent.logins.carry()
    assert agent.users.read_text() == login("second")
    assert agent.users.stat().st_mtime_ns == agent.own.stat().st_mtime_ns <= time.time_ns()


def test_a_user_who_logs_out_or_in_again_takes_the_agent_along(agent: Sharer) -> None:
    agent.users.unlink()
    agent.logins.carry()
    assert not agent.own.exists()
    agent.users.write_text(login("another account"))
    agent.logins.carry()
    assert agent.own.read_text() == login("another account")


def test_an_agent_that_logs_in_where_there_was_no_login_does_so_alone(tmp_path: Path, users: Path) -> None:
    users.unlink()
    agent = Sharer(tmp_path, "dev-1")
    agent.own.parent.mkdir()
    agent.own.write_text(login("its own"))
    dated(agent.own, -10)
    agent.logins.carry()
    agent.host()
    assert not users.exists()
    assert agent.own.read_text() == login("its own")


def test_an_agent_that_logs_out_does_so_alone_until_it_is_started_again(agent: Sharer) -> None:
    agent.own.unlink()
    agent.logins.carry()
    assert not agent.own.exists()
    assert agent.users.read_text() == login("first")
    agent.host()
    assert agent.own.read_text() == login("first")


def secret_of(tmp_path: Path) -> Path:
    secret = tmp_path / "secret" / "auth.json"
    secret.parent.mkdir()
    secret.write_text(login("another program's secret"))
    dated(secret, 5)
    return secret


def link_file(agent: Sharer, secret: Path) -> None:
    agent.own.unlink()
    agent.own.symlink_to(secret)


def link_folder(agent: Sharer, secret: Path) -> None:
    agent.own.unlink()
    agent.own.parent.rmdir()
    agent.own.parent.symlink_to(secret.parent)


def make_pipe(agent: Sharer, _: Path) -> None:
    agent.own.unlink()
    os.mkfifo(agent.own)


@pytest.mark.parametrize("trick", [link_file, link_folder, make_pipe])
def test_no_link_leads_out_of_the_agents_folder(
    tmp_path: Path, agent: Sharer, trick: Callable[[Sharer, Path], None]
) -> None:
    secret = secret_of(tmp_path)
    trick(agent, secret)
    with pytest.raises(OSError, match="directory") if trick is link_folder else nullcontext():
        agent.logins.carry()
    in_place(agent.users, login("renewed"))
    with pytest.raises(OSError, match="directory") if trick is link_folder else nullcontext():
        agent.logins.carry()
    assert agent.users.read_text() == login("renewed")
    assert secret.read_text() == login("another program's secret")
