"""A person logs in at a provider, through a server that listens: what they do is recorded under their name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fakes.openid import CLIENT, SECRET, FakeProvider, provided
from nodes import Broker
from served import Served, served

from torch_tasks import Torch


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with provided() as provider:
        yield provider


@pytest.fixture(scope="module")
def server(
    broker: Broker, torch: Torch, provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    secret: Path = tmp_path_factory.mktemp("oidc") / "secret"
    secret.write_text(SECRET)
    given = {"ISSUER": provider.issuer, "CLIENT_ID": CLIENT, "CLIENT_SECRET_FILE": str(secret), "OPERATORS": '["ops"]'}
    with served(broker, **{f"TORCH_OIDC_{name}": value for name, value in given.items()}) as server:
        yield server


def test_what_a_person_asks_for_is_recorded_under_their_name(server: Served, torch: Torch) -> None:
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=30, headers={"Accept": "text/html"}) as browser:
        there = browser.get("/login/provider?next=/api/v1")
        back = httpx2.get(there.headers["location"], trust_env=False).headers["location"]
        assert browser.get(back).headers["location"] == "/api/v1"
        task = {"prompt": "echo from a page", "role": "developer"}
        refused = browser.post("/api/v1/task.enqueue", json=task)
        assert (refused.status_code, refused.json()["error"]) == (400, "RequestNotTaken")
        done = browser.post("/api/v1/task.enqueue", json=task, headers={"Origin": server.url})
        by = torch.task(done.json()["id"]).record().enqueued_by
    assert by is not None
    assert by.name.startswith("person-ada-")
    assert (by.kind, by.role) == ("person", "operator")
    assert f"{by.name} logged in as operator, by account 17 of http://127.0.0.1" in server.log()
    assert SECRET not in server.log()
