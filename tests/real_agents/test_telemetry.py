"""What real CLIs send of their own to the user's collector: whose it is, and nothing of what was said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from collector import KeptSpans, collector
from hosted import Hosted
from installed import PATH, needs
from machine import short_folder
from nodes import Node

from torch_tasks import Torch
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.fake_model.steps import Text
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.certify.homes import ClaudeHome, CodexHome, GeminiHome

pytestmark = pytest.mark.slow
ASKED, ANSWERED = "name the capital of Atlantis", "it is called Poseidonis"
OFTEN = {
    "TORCH_PANE_ENVIRONMENT": '["OTEL_*"]',
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_LOGS_EXPORT_INTERVAL": "500",
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
}


class Sending(NamedTuple):
    """An agent whose user wants its program's telemetry, and what the collector got."""

    agent: Hosted
    got: KeptSpans


@pytest.fixture(params=[ClaudeHome, CodexHome, GeminiHome], ids=lambda home: home.cli)
def sending(request: pytest.FixtureRequest, shared_node: Node, torch: Torch) -> Iterator[Sending]:
    needs(request.param.cli)
    folder = short_folder()
    with FakeLLM(folder / "llm") as llm, collector() as (got, address):
        wants = {"TORCH_OTLP_ENDPOINT": address, "TORCH_PROGRAMS_TELEMETRY": "true", **OFTEN}
        home: Home = request.param(folder / "home", llm, path=PATH)
        try:
            yield Sending(Hosted(home, shared_node, torch, "developer-1", **wants), got)
        finally:
            home.clear()
    shutil.rmtree(folder)


def test_its_telemetry_says_whose_it_is_and_nothing_of_what_was_said(sending: Sending) -> None:
    agent, got = sending
    agent.llm.on(ASKED, Text(ANSWERED))
    assert agent.do(ASKED).answer == ANSWERED
    agent.wait(lambda: _resources(got), "its telemetry arrives")
    assert {"torch.agent": "developer-1", "torch.role": "developer", "torch.node": "node-a"}.items() <= _resources(
        got
    ).items()
    said = json.dumps(got.of_programs)
    assert ASKED not in said
    assert ANSWERED not in said


def _resources(got: KeptSpans) -> dict[str, str]:
    """The attributes of all that programs sent, together."""
    found: dict[str, str] = {}
    for message in got.of_programs:
        for of_resource in (one for ones in message.values() for one in ones):
            for one in of_resource.get("resource", {}).get("attributes", ()):
                found[one["key"]] = str(next(iter(one["value"].values()), ""))
    return found
