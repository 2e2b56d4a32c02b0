"""A fleet with a server before it, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import Chromium, chromium
from nodes import Broker
from served import Served, served

from torch_tasks import Torch


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    """Of one module: while Playwright runs, its thread can run no asyncio of other tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(broker: Broker, torch: Torch) -> Iterator[Served]:
    """The server of the module's fleet, which is empty at first."""
    with served(broker) as server:
        yield server
