"""The tools at the server: as the caller that the token names, and as nobody without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager

import httpx2
import pytest
from mcp_clients import NEWEST, OLDER, Tools, connected
from nodes import Broker
from served import Served, served

from torch_tasks import Torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(broker: Broker, torch: Torch) -> Iterator[Served]:
    with served(broker) as server:
        yield server


def by_token(server: Served, token: str, mode: str = NEWEST) -> AbstractContextManager[Tools]:
    """A client with this token."""
    return connected(f"{server.url}/mcp", mode, {"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("mode", [NEWEST, OLDER])
def test_an_operator_gives_the_fleet_a_task(server: Served, torch: Torch, mode: str) -> None:
    with by_token(server, server.own_token, mode) as tools:
        task = json.loads(tools.call("enqueue", prompt="true", role="nobody"))["id"]
        assert json.loads(tools.call("wait_for_task", task_id=task, seconds=1))["state"] == "queued"
        assert "done" not in tools.names(), "only an agent reports"
    assert torch.task(task).record().spec.role == "nobody"


def test_a_token_may_do_what_its_role_may(server: Served) -> None:
    with by_token(server, server.token("wall", "viewer")) as tools:
        assert json.loads(tools.call("health"))["status"]
        assert "enqueue" in tools.refusal("enqueue", prompt="true")


def test_nobody_gets_in_without_a_token(server: Served) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accepted = {"Accept": "application/json, text/event-stream"}
    with server.client("") as stranger:
        assert stranger.post("/mcp", json=asked, headers=accepted).status_code == 401
    with server.client() as owner:
        assert owner.post("/mcp", json=asked, headers={**accepted, "Host": "evil.example"}).status_code in (400, 421)
        assert owner.post("/mcp", json=asked, headers={**accepted, "Origin": "https://evil.example"}).status_code in (
            400,
            403,
        )
        assert owner.post("/mcp", content=b"{", headers=accepted).status_code == 400


def test_a_client_that_goes_away_in_its_wait_is_let_go(server: Served, torch: Torch) -> None:
    task = torch.enqueue("true", role="nobody")
    wait = {"name": "wait_for_task", "arguments": {"task_id": task.id}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": wait}
    with server.client() as client, pytest.raises(httpx2.ReadTimeout):
        client.post("/mcp", json=asked, headers={"Accept": "application/json, text/event-stream"}, timeout=1)
    with by_token(server, server.own_token) as tools:
        assert json.loads(tools.call("task", task_id=task.id))["state"] == "queued"
