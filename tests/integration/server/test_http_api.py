"""Operations by HTTP: generated, refused with their own errors, done once."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from mcp.client.streamable_http import streamable_http_client
from mcp_clients import connected
from nodes import Broker
from served import Served, mode_of, served
from waiting import until

from torch_tasks import Torch
from torch_tasks.model.task import TaskState


@pytest.fixture(scope="module")
def server(broker: Broker, torch: Torch) -> Iterator[Served]:
    with served(broker) as server:
        yield server


@pytest.fixture
def client(server: Served, broker: Broker) -> Iterator[httpx2.Client]:
    broker.empty()
    with server.client() as client:
        yield client


def test_a_task_that_is_posted_is_the_fleets(client: httpx2.Client, torch: Torch) -> None:
    reply = client.post("/api/v1/task.enqueue", json={"prompt": "echo hi", "role": "developer"})
    assert reply.status_code == 200
    record = torch.task(reply.json()["id"]).record()
    assert (record.spec.prompt, record.spec.role, record.state) == ("echo hi", "developer", TaskState.QUEUED)


def test_what_reads_is_asked_by_get_as_well(client: httpx2.Client, torch: Torch) -> None:
    waiting, ended = torch.enqueue("waits").id, torch.enqueue("is over")
    ended.cancel()
    found = client.get("/api/v1/task.list", params={"limit": "1000", "states": ["queued", "running"]})
    ids = {one["spec"]["id"] for one in found.json()}
    assert waiting in ids
    assert ended.id not in ids
    assert found.json() == client.post("/api/v1/task.list", json={"limit": 1000, "states": ["queued"]}).json()


def test_a_key_makes_two_requests_one(client: httpx2.Client, torch: Torch) -> None:
    key = {"Idempotency-Key": "order-17"}
    replies = [client.post("/api/v1/task.enqueue", json={"prompt": "once"}, headers=key).json() for _ in range(2)]
    assert replies[0] == replies[1]
    assert [one.spec.prompt for one in torch.tasks()].count("once") == 1


def test_a_key_makes_many_tasks_once(client: httpx2.Client, torch: Torch) -> None:
    key, body = {"Idempotency-Key": "orders"}, {"tasks": [{"prompt": "first of two"}, {"prompt": "second of two"}]}
    replies = [client.post("/api/v1/task.enqueue_many", json=body, headers=key).json() for _ in range(2)]
    assert replies[0] == replies[1]
    assert sorted(one.spec.prompt for one in torch.tasks() if "of two" in one.spec.prompt) == [
        "first of two", "second of two",
    ]  # fmt: skip


def test_models_are_served_beside_it(server: Served, client: httpx2.Client) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert httpx2.post(f"{server.url}/mcp", json=asked, trust_env=False).status_code == 401
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {server.own_token}"}, trust_env=False)
    with connected(streamable_http_client(f"{server.url}/mcp", http_client=http)) as tools:
        assert "enqueue" in tools.names()


def test_a_wait_lasts_until_the_end_and_quick_requests_pass_it(
    server: Served, client: httpx2.Client, torch: Torch
) -> None:
    task = torch.enqueue("later")
    with server.client() as other:
        waiting = other.build_request("GET", "/api/v1/task.wait", params={"task_id": task.id, "seconds": "0.2"})
        assert other.send(waiting).json()["state"] == TaskState.QUEUED
    task.cancel()
    ended = client.get("/api/v1/task.wait", params={"task_id": task.id, "seconds": "20"})
    assert ended.json()["state"] == TaskState.CANCELLED


def test_prometheus_sees_the_fleet_with_a_token_and_no_words_of_a_task(
    server: Served, client: httpx2.Client, torch: Torch
) -> None:
    torch.enqueue("private words", role="nobody-has-it")
    until(lambda: 'torch_tasks_unroutable{role="other"} 1.0' in client.get("/metrics").text, "the task is seen")
    shown = client.get("/metrics")
    assert shown.headers["content-type"].startswith("text/plain; version=")
    assert "torch_fleet_readable 1.0" in shown.text
    assert 'torch_api_requests_total{status="200"}' in shown.text
    assert "private" not in shown.text
    assert "nobody-has-it" not in shown.text
    with server.client("") as stranger:
        assert stranger.get("/metrics").status_code == 401


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_health_and_readiness_need_no_token(server: Served) -> None:
    with server.client("") as client:
        assert client.get("/healthz").text == "ok\n"
        assert client.get("/readyz").json() == {"ready": True, "reasons": []}


def test_a_task_that_is_none_is_named(client: httpx2.Client) -> None:
    reply = client.get("/api/v1/task.get", params={"task_id": "gone"})
    assert (reply.status_code, reply.json()["error"]) == (404, "TaskNotFound")


def test_a_token_opens_from_its_making_to_its_revocation(server: Served) -> None:
    token = server.token("ci", "program")
    with server.client(token) as client:
        assert client.get("/api/v1/task.list").status_code == 200
        server.command("token", "revoke", "ci")
        assert client.get("/api/v1/task.list").status_code == 401
    assert server.command("token", "revoke", "ci", code=1).stderr.startswith("Error: there is no token 'ci'")


def test_a_token_expires(server: Served) -> None:
    token = server.token("short", "viewer", "--expires", "1")
    with server.client(token) as client:
        until(lambda: client.get("/api/v1/task.list").status_code == 401, "it has expired")
        assert "'short' has expired" in client.get("/api/v1/task.list").json()["detail"]


def test_a_token_is_kept_nowhere_in_readable_form(server: Served) -> None:
    token = server.token("secret-keeper", "operator")
    with server.client(token) as client:
        client.get("/api/v1/task.list")
    files = [file for file in server.folder.rglob("*") if file.is_file()]
    assert [file for file in files if token.encode() in file.read_bytes()] == []
    assert {mode_of(server.state / name) for name in ("tokens.json", "server.token")} == {0o600}
    assert token not in server.command("token", "list").stdout + server.command("token", "list", "--json").stdout
    assert server.own_token not in server.log()


def test_the_log_names_who_asked_for_what_without_what_it_said(server: Served, client: httpx2.Client) -> None:
    headers = {"X-Request-Id": "trace-7", "Authorization": f"Bearer {server.token('watcher', 'operator')}"}
    assert client.get("/api/v1/task.get?task_id=private-words", headers=headers).headers["x-request-id"] == "trace-7"
    line = until(lambda: next((one for one in server.log().splitlines() if "trace-7" in one), None), "it is logged")
    assert "trace-7 token-watcher GET /api/v1/task.get 404 in" in line
    assert "private-words" not in server.log()


def test_another_address_than_loopback_wants_a_token_first(broker: Broker) -> None:
    server = Served(broker.url)
    server.state.mkdir()
    refused = server.command("serve", "--host", "0.0.0.0", "--port", "0", code=2)
    assert "torch-tasks token create" in refused.stderr


# ── its life ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_server_ends_at_once_though_clients_wait(broker: Broker, torch: Torch) -> None:
    task = torch.enqueue("nobody does it")
    with served(broker) as server, server.client() as client, client.stream("GET", "/api/v1/events") as stream:
        assert stream.status_code == 200
        assert server.end() == 0
    assert task.status is TaskState.QUEUED
