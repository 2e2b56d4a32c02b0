"""What one machine was like on one day, in numbers that are added up to a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from torch_tasks.model import metrics

REPORTED = frozenset(
    metric.name
    for metric in (
        *(metrics.TASKS_ENDED, metrics.TASKS_REDELIVERED, metrics.TASKS_TAKEN_OVER, metrics.TASKS_RETRIED),
        *(metrics.TASK_QUEUE_SECONDS, metrics.TASK_RUN_SECONDS, metrics.TASK_TOTAL_SECONDS, metrics.MESSAGE_SECONDS),
        *(metrics.WORKER_BACK_SECONDS,),
        *(metrics.MESSAGES_SETTLED, metrics.ACCOUNT_CALLS, metrics.TOKENS, metrics.COST, metrics.UNPRICED),
    )
)
"""The metrics whose counts of a day are kept."""


class Stretch(BaseModel):
    """Seconds of a day."""

    model_config = ConfigDict(extra="ignore")

    declared: float = 0.0
    """It should have been there."""
    up: float = 0.0
    """Its heartbeats came."""
    busy: float = 0.0
    """It had a task."""
    waiting: float = 0.0
    """It waited for a person."""

    def add(self, other: Stretch) -> None:
        for name in Stretch.model_fields:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class AgentDay(Stretch):
    role: str


class Peak(BaseModel):
    """The most that was used of something."""

    model_config = ConfigDict(extra="ignore")

    used: float = 0.0
    limit: float = 0.0
    """0: none is known."""


class Counted(NamedTuple):
    """What one agent counted of one metric; without an agent, another process of its machine."""

    agent: str
    metric: str
    labels: Mapping[str, str]
    numbers: list[float]


def count_key(agent: str, metric: str, labels: tuple[str, ...]) -> str:
    return json.dumps([agent, metric, *labels], separators=(",", ":"))


class NodeDay(BaseModel):
    model_config = ConfigDict(extra="ignore")

    node: str
    day: date
    itself: Stretch = Stretch()
    agents: dict[str, AgentDay] = {}
    counts: dict[str, list[float]] = {}
    """By :func:`count_key`; a histogram's numbers are those of the tally."""
    peaks: dict[str, Peak] = {}
    recoveries: dict[str, list[float]] = {}
    """By the kind of fault, how many seconds each took."""

    def count(self, key: str, numbers: list[float]) -> None:
        known = self.counts.get(key)
        self.counts[key] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]

    def peak(self, resource: str, used: float, limit: float) -> None:
        known = self.peaks.get(resource)
        self.peaks[resource] = Peak(used=max(used, known.used if known else 0.0), limit=limit)

    def counted(self) -> Iterator[Counted]:
        """Every count of a metric that this version has, with labels as it has them."""
        for key, numbers in self.counts.items():
            agent, name, *labels = json.loads(key)
            metric = metrics.METRICS.get(name)
            if metric and len(labels) == len(metric.labels):
                yield Counted(agent, name, dict(zip(metric.labels, labels, strict=True)), numbers)
