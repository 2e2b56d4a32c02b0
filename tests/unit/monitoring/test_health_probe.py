"""A process says within two seconds whether it can do its job, and what keeps it from that."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from waiting import until

from torch_tasks.errors import BrokerUnreachable
from torch_tasks.fleet import Fleet
from torch_tasks.monitoring.pages import Page, PageKeeper, health_pages
from torch_tasks.monitoring.readiness import ReadinessProbe, lacks_of_disk
from torch_tasks.system import machine_use


def client_of(pages: dict[str, Callable[[], Page]], folder: Path) -> Iterator[httpx2.Client]:
    keeper = PageKeeper("127.0.0.1", 0, pages, folder / "address.json")
    keeper.loop.start()
    until((folder / "address.json").exists, "it listens")
    url = json.loads((folder / "address.json").read_text())["url"]
    with httpx2.Client(base_url=url, trust_env=False, timeout=20) as client:
        yield client
    keeper.loop.stop()


@pytest.fixture
def lacks() -> list[str]:
    return []


@pytest.fixture
def client(lacks: list[str], tmp_path: Path) -> Iterator[httpx2.Client]:
    def broken() -> Page:
        raise ZeroDivisionError

    pages = {**health_pages(ReadinessProbe(lambda: list(lacks))), "/broken": broken}
    yield from client_of(pages, tmp_path)


def test_it_is_ready_while_nothing_is_lacking(client: httpx2.Client, lacks: list[str]) -> None:
    assert client.get("/healthz").text == "ok\n"
    reply = client.get("/readyz")
    assert (reply.status_code, reply.json()) == (200, {"ready": True, "reasons": []})
    lacks.append("the broker is away")
    until(lambda: client.get("/readyz").status_code == 503, "it is seen")
    assert client.get("/readyz").json() == {"ready": False, "reasons": ["the broker is away"]}
    assert client.get("/healthz").status_code == 200


def test_other_paths_and_faults_are_answered(client: httpx2.Client) -> None:
    assert client.get("/secrets").status_code == 404
    assert "/readyz" in client.get("/").text
    assert client.get("/broken").status_code == 500
    assert client.get("/healthz").status_code == 200


def test_a_look_that_never_ends_is_said_in_time_and_begun_once() -> None:
    end, begun = threading.Event(), []

    def look() -> list[str]:
        begun.append(1)
        end.wait(30)
        return ["late"]

    probe = ReadinessProbe(look)
    assert probe.lacks() == probe.lacks() == ["it is not known after 2 s whether all is well"]
    end.set()
    until(lambda: probe.lacks() == ["late"], "the look ends")
    assert len(begun) == 1


def test_a_look_that_fails_is_a_lack() -> None:
    def look() -> list[str]:
        raise BrokerUnreachable("no broker answers")

    assert ReadinessProbe(look).lacks() == ["it cannot be found out whether all is well: no broker answers"]


def test_a_full_disk_is_a_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(folder: Path) -> list[str]:
        of: Any = SimpleNamespace(settings=SimpleNamespace(state_dir=folder))
        return list(lacks_of_disk(cast(Fleet, of)))

    assert look(tmp_path) == []
    assert "cannot be used" in look(tmp_path / "gone")[0]
    monkeypatch.setattr(machine_use, "LEAST_FREE_MIB", 1 << 40)
    assert look(tmp_path)[0].startswith(f"the disk of {tmp_path} is full: ")
