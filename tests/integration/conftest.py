"""The fleet under test, its transport alone, and pytest-celery's setup made of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from fleet import broker_of_this_machine
from nodes import PACE, AgentWorker, Broker, Node
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBackend,
    RedisTestBroker,
)
from transport_parts import Bench

from torch_tasks import Torch
from torch_tasks.app import app


@pytest.fixture
def bench(broker: Broker) -> Iterator[Bench]:
    """The small app over the leased transport, on an empty broker."""
    broker.empty()
    bench = Bench(broker)
    yield bench
    bench.close()


@pytest.fixture
def own_bench(own_broker: Broker) -> Iterator[Bench]:
    """The same on a broker of its own."""
    bench = Bench(own_broker)
    yield bench
    bench.close()


@pytest.fixture
def lasting_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The same on a broker that loses no write when it is killed."""
    with broker_of_this_machine(monkeypatch, keeps_every_write=True) as broker:
        bench = Bench(broker)
        yield bench
        bench.close()


# ── pytest-celery ────────────────────────────────────────────────────────────────────────────────────────────────


class TorchSetup(CeleryTestSetup):
    """Torch's own application, on the nodes of the test."""

    @classmethod
    def create_setup_app(cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str) -> Celery:
        assert app.conf.broker_url == celery_setup_config["broker_url"]
        return app


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    return TorchSetup


@pytest.fixture
def celery_broker_cluster(broker: Broker, torch: Torch) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(RedisTestBroker(broker))


@pytest.fixture
def celery_backend_cluster(broker: Broker) -> CeleryBackendCluster:
    return CeleryBackendCluster(RedisTestBackend(broker))


@pytest.fixture
def celery_worker_cluster(celery_setup_worker: CeleryTestWorker) -> CeleryWorkerCluster:
    return CeleryWorkerCluster(celery_setup_worker)


if os.environ.get("TORCH_TEST_CONTAINERS") == "1":  # the worker as it is shipped, beside the session's broker
    from pytest_celery import CeleryWorkerContainer
    from pytest_docker_tools import build, container, fxtr

    class AgentContainer(CeleryWorkerContainer):
        """The agent worker of the shipped image."""

        @classmethod
        def command(cls, *args: str, **kwargs: Any) -> list[str]:
            return ["celery", "-A", "torch_tasks", "worker", "--loglevel=INFO", "--id=developer-1", "--role=developer"]

    @pytest.fixture
    def agent_container_env(broker: Broker) -> dict[str, str]:
        return {**PACE, "TORCH_BROKER_URL": broker.url}

    torch_image = build(path=str(Path(__file__).parents[2]), dockerfile="compose/Dockerfile", scope="session")
    default_worker_container = container(
        image="{torch_image.id}",
        network_mode="host",
        environment=fxtr("agent_container_env"),
        command=AgentContainer.command(),
        wrapper_class=AgentContainer,
    )

else:

    @pytest.fixture
    def default_worker_container(node: Node) -> AgentWorker:
        return node.agent_worker("developer-1")
