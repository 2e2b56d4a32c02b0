"""What ``torch-tasks console`` makes of where the server listens, and of a machine without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.cli import console
from torch_tasks.errors import ServerUnreachable
from torch_tasks.state_folder import StateFolder


@pytest.mark.parametrize(
    ("listens", "reached"),
    [
        ("http://127.0.0.1:5556", "http://127.0.0.1:5556"),
        ("http://0.0.0.0:5556", "http://127.0.0.1:5556"),
        ("https://[::]:5556", "https://[::1]:5556"),
        ("https://torch.example:443", "https://torch.example:443"),
    ],
)
def test_a_server_that_listens_everywhere_is_reached_at_this_machine(listens: str, reached: str) -> None:
    assert console.reachable(listens) == reached


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachable, match=r"no server runs in .*: 'torch-tasks up' starts one"):
        console.login_link(StateFolder(tmp_path), "/")


def test_the_browser_is_given_a_file_of_this_user_and_not_the_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(console.webbrowser, "open", lambda address: opened.append(address) or True)
    link = "http://127.0.0.1:5556/login/link?code=secret&x"
    assert console.open_quietly(StateFolder(tmp_path), link)
    (address,) = opened
    file = Path(address.removeprefix("file://"))
    assert "secret" not in address
    assert 'url=http://127.0.0.1:5556/login/link?code=secret&amp;x"' in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("name", "shown"), [("DISPLAY", True), ("WAYLAND_DISPLAY", True), ("TERM", False)])
def test_a_browser_is_opened_where_there_is_a_display(monkeypatch: pytest.MonkeyPatch, name: str, shown: bool) -> None:
    for other in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setattr(console.sys, "platform", "linux")
    monkeypatch.setenv(name, ":0")
    assert console.has_display() is shown
