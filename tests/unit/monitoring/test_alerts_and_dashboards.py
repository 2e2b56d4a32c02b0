"""Alerts and dashboards speak of metrics that exist, with labels that they have; and alerts of commands that exist."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from torch_tasks.cli import COMMANDS
from torch_tasks.model.metrics import METRICS, MetricType

FOLDER = Path(__file__).parents[3] / "compose" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
RECORDED = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
TESTS = RECORDED + yaml.safe_load((FOLDER / "alerts_quiet_test.yml").read_text())["tests"]
DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in sorted((FOLDER / "dashboards").glob("*.json"))}
SELECTOR = re.compile(r"\b(torch_\w+)(?:\{([^}]*)\})?")
GIVEN_BY_PROMETHEUS = {"instance", "job", "le"}
FEWEST_PANELS = 8


def names() -> dict[str, set[str]]:
    """Each name that a query may use, with the labels that it has."""
    known: dict[str, set[str]] = {}
    for metric in METRICS.values():
        endings = ("_bucket", "_count", "_sum") if metric.type is MetricType.HISTOGRAM else ("",)
        for ending in endings:
            known[metric.shown_name + ending] = {*metric.labels, *GIVEN_BY_PROMETHEUS}
    return known


def unknown(query: str) -> Iterator[str]:
    """What in a query is no metric, or no label of it."""
    known, grouped = names(), set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", query))))
    used: set[str] = set()
    for name, labels in SELECTOR.findall(query):
        if name not in known:
            yield name
            continue
        used |= known[name]
        yield from (f"{name}.{label}" for label in re.findall(r"(\w+)\s*(?:=|!)", labels) if label not in known[name])
    yield from grouped - used


def expressions() -> Iterator[tuple[str, str]]:
    """Every query, with where it stands."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
    for test in TESTS:
        for series in test["input_series"]:
            yield f"test of {test['name']}", series["series"]


@pytest.mark.parametrize(("where", "query"), list(expressions()))
def test_a_query_uses_only_metrics_and_labels_that_exist(where: str, query: str) -> None:
    assert list(unknown(query)) == [], where


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("rate(torch_tasks_ended[5m])", "torch_tasks_ended"),
        ("sum by (colour) (torch_agents)", "colour"),
        ('torch_agents{colour="red"}', "torch_agents.colour"),
        ("torch_task_run_seconds", "torch_task_run_seconds"),
    ],
)
def test_a_query_of_anything_else_is_noticed(query: str, wrong: str) -> None:
    assert list(unknown(query)) == [wrong]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do_with_commands_that_exist(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"]["summary"]
    do = rule["annotations"]["do"]
    commands = set(re.findall(r"torch-tasks ([a-z]+)", do))
    assert commands <= {command for group in COMMANDS.values() for command in group}
    assert commands or "TORCH_" in do
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= {
        label for name, _ in SELECTOR.findall(rule["expr"]) for label in names()[name]
    } | {"instance", "job"}


def test_every_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    fires, quiet = set(), set()
    for test in RECORDED:
        for case in test["alert_rule_test"]:
            (fires if case.get("exp_alerts") else quiet).add(case["alertname"])
    assert fires == quiet == {rule["alert"] for rule in RULES}


def test_the_dashboards_are_those_of_the_table() -> None:
    made = runpy.run_path(str(FOLDER / "generate_dashboards.py"))
    assert set(DASHBOARDS) == set(made["DASHBOARDS"]) == {"fleet", "tasks", "agents", "accounts", "torch"}
    for name in DASHBOARDS:
        run = "run python compose/monitoring/generate_dashboards.py"
        assert (FOLDER / "dashboards" / f"{name}.json").read_text() == made["text"](name), run


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_two_panels_of_a_dashboard_are_in_one_place(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    panels = DASHBOARDS[name]["panels"]
    assert len(panels) >= FEWEST_PANELS
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_every_metric_is_in_an_alert_or_on_a_dashboard() -> None:
    used = {name for _, query in expressions() for name, _ in SELECTOR.findall(query)}
    shown = {metric.shown_name for metric in METRICS.values()}
    left_out = {name for name in shown if not any(one.startswith(name) for one in used)}
    assert left_out == {"torch_node_info"}
