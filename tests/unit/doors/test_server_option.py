"""Which commands go through a server, and which are about the machine on which they are typed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from torch_tasks.cli import main
from torch_tasks.link import NO_SERVER, SERVER_VARIABLE, server_chosen
from torch_tasks.link.server import ServerLink

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_server_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, NO_SERVER)  # what a command sets is undone
    monkeypatch.setenv("TORCH_BROKER_CONNECT_SECONDS", "0.1")


@pytest.mark.parametrize("words", ["up", "down", "serve", "token list", "attach dev-1", "stop --here", "node"])
def test_what_is_about_this_machine_goes_through_no_server(words: str) -> None:
    done = CliRunner().invoke(main, ["--server", NOWHERE, *words.split()])
    assert done.exit_code == 2
    assert "leave --server out" in done.output


def test_every_other_command_asks_the_server() -> None:
    for words in ("tasks", "agents", "node list", "inbox", "budget", "claims", "checkin list", "summary"):
        done = CliRunner().invoke(main, ["--server", NOWHERE, *words.split()])
        assert (done.exit_code, "there is no token" in done.output) == (5, True), words
        assert server_chosen() == NOWHERE


@pytest.mark.parametrize(
    "url", ["torch.example", "ftp://torch.example", "http://", "http://user:word@torch.example", "http://[x"]
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    done = CliRunner().invoke(main, ["--server", url, "tasks"])
    assert done.exit_code == 2
    assert "is no address of a server" in done.output


def test_a_link_asks_at_the_address_that_it_was_given() -> None:
    assert ServerLink("https://torch.example/fleet/").url == "https://torch.example/fleet"
