"""What the server takes and what it refuses, before any broker is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from clients import read_settings_anew
from openapi_spec_validator import validate
from starlette.applications import Starlette

from torch_tasks.errors import InvalidTask, InvalidToken, NotAuthenticated, TokenNotFound
from torch_tasks.model.spawn import SpawnRequest
from torch_tasks.operations.operation import Access, all_operations
from torch_tasks.server.application import application
from torch_tasks.server.events import EventHub
from torch_tasks.server.tokens import AccessTokens, TokenRole
from torch_tasks.settings import Settings, settings
from torch_tasks.state_folder import StateFolder

MOST = 1 << 20
WEB = "http://127.0.0.1:5556"


@pytest.fixture
def tokens(tmp_path: Path) -> AccessTokens:
    return AccessTokens(StateFolder(tmp_path / "state"))


class Client:
    """Asks an application that listens nowhere."""

    def __init__(self, app: Starlette, token: str) -> None:
        self._app = app
        self.headers = {"Authorization": f"Bearer {token}"}

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **how: Any) -> httpx2.Response:
        async def ask() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(self._app), base_url=WEB) as client:
                return await client.request(method, path, headers={**self.headers, **(headers or {})}, **how)

        return asyncio.run(ask())

    def get(self, path: str, **how: Any) -> httpx2.Response:
        return self.request("GET", path, **how)

    def post(self, path: str, **how: Any) -> httpx2.Response:
        return self.request("POST", path, **how)


@pytest.fixture
def client(tmp_path: Path, tokens: AccessTokens, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client with a token, of a server whose broker is away."""
    given = {"BROKER_URL": "redis://127.0.0.1:1/0", "STATE_DIR": tmp_path / "state", "BROKER_CONNECT_SECONDS": 0.1}
    for name, value in {**given, "SERVER_REQUEST_BYTES": MOST}.items():
        monkeypatch.setenv(f"TORCH_{name}", str(value))
    read_settings_anew()
    yield Client(application(settings(), EventHub(), ["torch.example"]), tokens.create("tester", TokenRole.OPERATOR))
    monkeypatch.undo()
    read_settings_anew()


REFUSED = {
    "an unknown operation": ("POST", "/api/v1/task.enqeue", {}, 404, "UnknownOperation", 2, "task.enqueue"),
    "an unknown noun": ("GET", "/api/v1/nonsense", None, 404, "UnknownOperation", 2, "'nonsense'"),
    "an unknown version": ("POST", "/api/v2/task.get", {}, 404, "UnknownOperation", 2, "/api/v1"),
    "an unknown field": ("POST", "/api/v1/task.get", {"task": "a"}, 422, "InvalidRequest", 2, "task: is not a field"),
    "a field that is missing": ("GET", "/api/v1/task.get", None, 422, "InvalidRequest", 2, "task_id: is missing"),
    "writing by GET": ("GET", "/api/v1/task.cancel?task_id=a", None, 405, "RequestNotTaken", 2, "POST"),
    "another method": ("DELETE", "/api/v1/task.get", None, 405, "RequestNotTaken", 2, "DELETE"),
    "a list": ("POST", "/api/v1/task.get", [1], 422, "InvalidRequest", 2, "it is no JSON object, but a list"),
    "one field twice": ("GET", "/api/v1/task.get?task_id=a&task_id=b", None, 422, "InvalidRequest", 2, "2 times"),
    "events of no kind": ("GET", "/api/v1/events?kinds=taks", None, 422, "InvalidRequest", 2, "'taks'"),
    "a field of events": ("GET", "/api/v1/events?kind=tasks", None, 422, "InvalidRequest", 2, "kind: is not a field"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_with_the_error_of_every_door(client: Client, case: str) -> None:
    method, path, body, status, name, exit_code, words = REFUSED[case]
    reply = client.request(method, path, json=body) if body is not None else client.request(method, path)
    problem = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert (reply.status_code, problem["status"], problem["error"]) == (status, status, name)
    assert problem["exit_code"] == exit_code
    assert words in problem["detail"]
    assert reply.headers["x-request-id"]


BODIES = {
    "half": (b'{"task_id": ', "application/json", 422),
    "deep": (b"[" * 90_000, "application/json", 422),
    "not UTF-8": (b'{"task_id": "\xff"}', "application/json", 422),
    "not a number": (b'{"limit": NaN}', "application/json", 422),
    "not JSON": (b'{"task_id": "a"}', "text/plain", 415),
    "without a type": (b'{"task_id": "a"}', "", 415),
    "too long": (b'{"task_id": "' + b"a" * MOST + b'"}', "application/json", 413),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_none_is_refused(client: Client, case: str) -> None:
    body, kind, status = BODIES[case]
    reply = client.post("/api/v1/task.get", content=body, headers={"Content-Type": kind})
    assert (reply.status_code, reply.json()["exit_code"]) == (status, 2)


async def in_pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b" " * (MOST // 2)


def test_a_body_that_does_not_say_how_long_it_is_is_measured(client: Client) -> None:
    reply = client.post("/api/v1/task.get", content=in_pieces())
    assert reply.status_code == 413


@pytest.mark.parametrize("key", ["", "a" * 256, "with\ttab"])
def test_a_key_that_is_none_is_refused(client: Client, key: str) -> None:
    reply = client.post("/api/v1/task.cancel", json={"task_id": "a"}, headers={"Idempotency-Key": key})
    assert (reply.status_code, reply.json()["error"]) == (422, "InvalidRequest")


def test_a_broker_that_is_away_is_said_and_worth_another_try(client: Client) -> None:
    reply = client.get("/api/v1/task.list")
    assert (reply.status_code, reply.json()["error"], reply.json()["exit_code"]) == (503, "BrokerUnreachable", 4)
    assert reply.headers["retry-after"] == "1"
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "127.0.0.1:1" in ready.json()["reasons"][0]


# ── who may come in ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer x", "Bearer torch__", "Bearer torch_own_x", "Basic eDp4"]
)
def test_nobody_comes_in_without_a_token(client: Client, given: str | None) -> None:
    client.headers.clear()
    reply = client.get("/api/v1/task.list", headers={} if given is None else {"Authorization": given})
    assert (reply.status_code, reply.json()["error"]) == (401, "NotAuthenticated")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz").text == "ok\n"


FOREIGN = (
    {"Host": "evil.example"},
    {"Host": "evil.example:5556"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "[::1"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("path", ["/api/v1/task.list", "/healthz"])
def test_a_page_of_another_site_cannot_ask(client: Client, headers: dict[str, str], path: str) -> None:
    reply = client.get(path, headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (400, "RequestNotTaken")
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("host", ["localhost:5556", "127.0.0.1", "[::1]:5556", "torch.example", "10.0.0.7:80"])
def test_its_own_names_and_addresses_are_answered_to(client: Client, host: str) -> None:
    reply = client.get("/api/v1", headers={"Host": host, "Origin": f"http://{host}"})
    assert reply.status_code == 200


def test_more_requests_than_may_be_served_are_turned_away(tmp_path: Path, tokens: AccessTokens) -> None:
    narrow = Settings(state_dir=tmp_path / "state", server_requests=1)
    hub, token = EventHub(), tokens.create("one", TokenRole.VIEWER)
    client = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(application(narrow, hub, [])),
        base_url=WEB,
        headers={"Authorization": f"Bearer {token}"},
    )

    async def ask_beside_a_stream() -> httpx2.Response:
        stream = asyncio.create_task(client.get("/api/v1/events"))
        while not hub.clients:
            await asyncio.sleep(0)
        refused = await client.get("/api/v1")
        hub.close()
        assert (await stream).status_code == 200
        return refused

    refused = asyncio.run(ask_beside_a_stream())
    assert (refused.status_code, refused.json()["error"]) == (503, "ServerBusy")


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_names_its_bearer(tokens: AccessTokens) -> None:
    who = tokens.bearer_of(tokens.create("ci", TokenRole.PROGRAM))
    assert (who.name, who.kind, who.role) == ("token-ci", "program", "program")
    who = tokens.bearer_of(tokens.own_token().read_text().strip())
    assert (who.name, who.kind, who.role) == ("operator", "person", "operator")


def test_a_token_that_is_nearly_right_opens_nothing(tokens: AccessTokens) -> None:
    token = tokens.create("ci", TokenRole.PROGRAM)
    for wrong in (token[:-1], token + "x", token.upper(), token.replace("torch_", ""), ""):
        with pytest.raises(NotAuthenticated):
            tokens.bearer_of(wrong)


def test_an_expired_token_says_so(tokens: AccessTokens) -> None:
    with pytest.raises(NotAuthenticated, match="'old' has expired"):
        tokens.bearer_of(tokens.create("old", TokenRole.VIEWER, lasts_seconds=-1))


@pytest.mark.parametrize("name", ["operator", "token-ci"])
def test_no_agent_is_called_like_a_person_or_the_bearer_of_a_token(name: str) -> None:
    with pytest.raises(InvalidTask, match="choose another name"):
        SpawnRequest.build(role="developer", agent_id=name)


@pytest.mark.parametrize("name", ["with space", "", "Ä", "a" * 43])
def test_a_token_has_a_name_that_messages_can_carry(tokens: AccessTokens, name: str) -> None:
    with pytest.raises(InvalidToken):
        tokens.create(name, TokenRole.VIEWER)
    assert tokens.all() == ()


def test_two_tokens_have_two_names(tokens: AccessTokens) -> None:
    tokens.create("ci", TokenRole.VIEWER)
    with pytest.raises(InvalidToken, match="revoke it first"):
        tokens.create("CI", TokenRole.VIEWER)
    tokens.revoke("ci")
    with pytest.raises(TokenNotFound):
        tokens.revoke("ci")


def test_another_process_sees_a_change_at_once(tokens: AccessTokens, tmp_path: Path) -> None:
    other = AccessTokens(StateFolder(tmp_path / "state"))
    token = tokens.create("ci", TokenRole.VIEWER)
    assert other.bearer_of(token).name == "token-ci"
    tokens.revoke("ci")
    with pytest.raises(NotAuthenticated):
        other.bearer_of(token)


# ── described ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_api_is_described_whole(client: Client) -> None:
    document = client.get("/api/openapi.json").json()
    validate(document)
    for one in all_operations():
        methods = document["paths"][f"/api/v1/{one.name}"]
        assert set(methods) == ({"get", "post"} if one.access is Access.READ else {"post"})
        assert methods["post"]["summary"] == one.description
    listed = client.get("/api/v1").json()["operations"]
    assert [one["name"] for one in listed] == [one.name for one in all_operations()]
