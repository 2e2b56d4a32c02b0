"""To where pushes are sent, whose browsers are told, and what they are told."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

import pytest
from served import mode_of

from torch_tasks.errors import InvalidRequest
from torch_tasks.model.fields import now
from torch_tasks.orchestration.attention import Need, NeedKind
from torch_tasks.server.push.addresses import read_endpoint, resolve
from torch_tasks.server.push.sending import PushKey, facts, facts_together
from torch_tasks.server.push.subscriptions import MOST_OF_ONE, Subscription, Subscriptions
from torch_tasks.server.tokens import AccessTokens, TokenRole
from torch_tasks.state_folder import StateFolder


@pytest.mark.parametrize(
    "address",
    [
        "http://push.example/x", "https://", "https://u:p@push.example/x", "ftp://push.example", "https://h/#f", "x",
        "https://push.example/" + "a" * 2000, "https://push.example:99999/", "https://push.example/a b", "https://é/",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_push_service_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest):
        read_endpoint(address)


@pytest.mark.parametrize(
    "inside",
    [
        "127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::",
    ],
)  # fmt: skip
def test_nothing_is_sent_to_an_address_inside(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))
    within = (socket.AF_INET6 if ":" in inside else socket.AF_INET, socket.SOCK_STREAM, 6, "", (inside, 443))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [outside, within])
    parts = read_endpoint("https://push.example/x")
    with pytest.raises(InvalidRequest, match="TORCH_PUSH_SERVICES"):
        resolve(parts, ())
    assert resolve(parts, ("push.example:443",)) == outside[4]


def test_of_the_internet_https_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert resolve(read_endpoint("https://push.example/x"), ()) == ("93.184.216.34", 443)
    with pytest.raises(InvalidRequest, match="port 8443"):
        resolve(read_endpoint("https://push.example:8443/x"), ())


def test_many_needs_are_one_push_that_leads_to_all_of_them() -> None:
    many = [Need.of(NeedKind.DEAD, f"t{n}", f"task t{n} is dead", "", task=f"t{n}") for n in range(40)]
    told = facts_together([*many, Need.of(NeedKind.LOGIN, "dev-1", "dev-1 wants a login", "", agent="dev-1")])
    assert (told["title"], told["body"]) == ("41 things need you", "Dead (40)\nLogin: dev-1")
    assert told["url"] == "/?need=all"
    assert facts_together(many)["tag"] != told["tag"], "a browser says nothing of what has the same tag"


@pytest.fixture
def kept(tmp_path: Path) -> Subscriptions:
    return Subscriptions(StateFolder(tmp_path), AccessTokens(StateFolder(tmp_path)))


def browser(number: int, person: str) -> Subscription:
    return Subscription(endpoint=f"https://push.example/{number}", p256dh="BA", auth="ab", person=person)


def test_a_persons_latest_browsers_are_kept_and_nobody_elses_are_dropped_for_them(kept: Subscriptions) -> None:
    kept.add(browser(1000, "person-other"))
    for number in range(MOST_OF_ONE + 3):
        kept.add(browser(number, "person-ada"))
    assert [one.person for one in kept.current()] == ["person-other"] + ["person-ada"] * MOST_OF_ONE
    assert kept.current()[-1].endpoint.endswith(f"/{MOST_OF_ONE + 2}")
    assert mode_of(kept._file) == 0o600


def test_a_browser_is_of_whoever_asked_last_and_only_they_end_it(kept: Subscriptions) -> None:
    kept.add(browser(1, "person-ada"))
    kept.add(browser(1, "person-bob"))
    assert [one.person for one in kept.current()] == ["person-bob"]
    kept.remove("https://push.example/1", "person-ada")
    assert kept.current()
    kept.remove("https://push.example/1", "person-bob")
    assert not kept.current()


def test_whose_token_is_revoked_and_who_was_long_away_is_not_told(kept: Subscriptions, tmp_path: Path) -> None:
    tokens = AccessTokens(StateFolder(tmp_path))
    tokens.create("phone", TokenRole.VIEWER)
    kept.add(browser(1, "token-phone"))
    kept.add(browser(2, "person-ada").model_copy(update={"renewed_at": now() - timedelta(days=31)}))
    assert [one.person for one in kept.current()] == ["token-phone"]
    tokens.revoke("phone")
    assert not kept.current()


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    made = PushKey(state).public
    assert PushKey(state).public == made
    assert mode_of(state.push_key) == 0o600


def test_a_browser_is_told_the_kind_the_agent_and_where_to_look() -> None:
    need = Need.of(NeedKind.QUESTION, "t 1", "dev-1 asks: " + "x" * 10_000, "do it", agent="dev-1", task="t")
    told = facts(need)
    assert (told["title"], told["tag"], told["url"]) == ("Question: dev-1", "question t 1", "/?need=question%20t%201")
    assert len(told["body"]) <= 600
