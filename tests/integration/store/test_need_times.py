"""Since when a person has been needed, as servers see it that come and go."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks import Torch, keys
from torch_tasks.broker.clock import time_ms
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now
from torch_tasks.monitoring.exposition import samples
from torch_tasks.monitoring.fleet_metrics import fleet_metrics

OLDEST = "torch_person_needed_oldest_seconds", frozenset({("kind", "login")})
HOUR = 3600.0


@pytest.fixture
def agent_without_login(torch: Torch) -> AgentInfo:
    known: dict[str, Any] = {
        "agent_id": "dev-1",
        "role": "developer",
        "kind": "claude",
        "node": "n",
        "pid": 1,
        "host": "h",
    }
    known |= {"incarnation": 0, "workdir": "/w", "tmux_socket": "/t", "started_at": now(), "state": AgentState.LOGIN}
    info = AgentInfo.model_validate(known)
    fleet().registry.register(info, holder_is_gone=True)
    return info


def first_seen_an_hour_ago() -> None:
    fleet().client.hset(keys.NEEDED_SINCE, "login dev-1", time_ms(fleet().client) - round(HOUR * 1000))


def test_a_server_that_starts_anew_counts_on(agent_without_login: AgentInfo) -> None:
    assert samples(fleet_metrics(fleet))[OLDEST] < HOUR / 2
    first_seen_an_hour_ago()
    assert samples(fleet_metrics(fleet))[OLDEST] == pytest.approx(HOUR, abs=60)


def test_a_broker_that_has_forgotten_learns_it_from_the_server(torch: Torch) -> None:
    times = fleet().need_times
    assert times.ages(["login dev-1"], {"login dev-1": HOUR})["login dev-1"] == pytest.approx(HOUR, abs=1)
    assert times.ages(["login dev-1"], {})["login dev-1"] == pytest.approx(HOUR, abs=60)


def test_what_is_over_is_forgotten_and_begins_anew(torch: Torch) -> None:
    times = fleet().need_times
    first_seen_an_hour_ago()
    assert times.ages([], {}) == {}
    assert times.ages(["login dev-1"], {})["login dev-1"] < HOUR / 2


def test_an_age_that_was_broken_on_the_broker_begins_anew(torch: Torch) -> None:
    fleet().client.hset(keys.NEEDED_SINCE, mapping={"login dev-1": "long ago", "dead t-1": "-"})
    assert fleet().need_times.ages(["login dev-1"], {})["login dev-1"] < HOUR / 2
    assert set(fleet().client.hkeys(keys.NEEDED_SINCE)) == {"login dev-1"}
