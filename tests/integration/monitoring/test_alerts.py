"""Alerts fire and end: as promtool moves the series, and in a real Prometheus while a real fleet is broken."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from nodes import Broker, Node
from prometheus import MONITORING, Prometheus, free_port, program, prometheus
from served import served
from waiting import until

from torch_tasks import Torch
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.fleet import fleet
from torch_tasks.tasks.dead_letters import DeadLetters

pytestmark = pytest.mark.slow
ALERTS = (MONITORING / "alerts.yml").read_text()
RULES = [rule["alert"] for group in yaml.safe_load(ALERTS)["groups"] for rule in group["rules"]]


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [program("promtool"), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_promtool_takes_the_rules_and_the_configuration(tmp_path: Path) -> None:
    assert promtool("check", "rules", str(MONITORING / "alerts.yml")).returncode == 0
    for name in ("prometheus.yml", "alerts.yml"):
        text = (MONITORING / name).read_text().replace("/run/secrets/prometheus-token", str(tmp_path / "token"))
        (tmp_path / name).write_text(text)
    (tmp_path / "token").touch()
    checked = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert checked.returncode == 0, checked.stderr


def test_each_alert_fires_and_ends_when_it_should() -> None:
    tested = promtool("test", "rules", *(str(MONITORING / f"alerts_{what}.yml") for what in ("test", "quiet_test")))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_an_alert_that_never_fires_would_be_noticed(tmp_path: Path) -> None:
    shutil.copy(MONITORING / "alerts_test.yml", tmp_path)
    (tmp_path / "alerts.yml").write_text(re.sub(r"expr: .*", "expr: vector(0) > 1", ALERTS))
    said = promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert said.returncode != 0
    failed = re.findall(r"alertname: (\w+)", said.stdout + said.stderr)
    assert set(failed) == set(RULES)


# ── a real fleet, broken ─────────────────────────────────────────────────────────────────────────────────────────────


def impatient(rules: str) -> str:
    """The same alerts, without their waits: minutes are seconds."""
    return re.sub(r"> (900|600|60)$", "> 1", re.sub(r"for: \d+m", "for: 0s", rules), flags=re.MULTILINE)


def dashboards() -> list[str]:
    """Every query of every dashboard, as Grafana sends it."""
    files = sorted((MONITORING / "dashboards").glob("*.json"))
    panels = [panel for file in files for panel in json.loads(file.read_text())["panels"]]
    return [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]


class Watched:
    """A fleet of one machine, its server, and Prometheus before both."""

    def __init__(self, node: Node, port: int, seen: Prometheus) -> None:
        self.seen = seen
        self._node, self._port = node, port

    def start_node(self) -> None:
        self.worker = self._node.node_worker("dev-1:developer", TORCH_METRICS_PORT=str(self._port))

    def shows(self, expression: str, number: float) -> None:
        until(lambda: self.seen.value(expression) == number, f"{expression} is {number}")

    def fires(self, alert: str, about: str) -> None:
        """It fires, and says what it is about."""
        found = until(lambda: self.seen.firing().get(alert), f"{alert} fires", 60)
        assert about in found["annotations"]["summary"]

    def ends(self, alert: str) -> None:
        until(lambda: alert not in self.seen.firing(), f"{alert} ends", 60)


def test_a_fleet_that_is_broken_and_mended_is_seen_so(
    broker: Broker, torch: Torch, new_node: Callable[[str], Node], tmp_path: Path
) -> None:
    program("prometheus")
    node, port = new_node("node-a"), free_port()
    with served(broker, TORCH_HEARTBEAT_SECONDS="0.5") as server:
        (tmp_path / "token").write_text(server.token("prometheus", "viewer"))
        scrapes = {
            "torch-nodes": {"static_configs": [{"targets": [f"127.0.0.1:{port}"]}]},
            "torch-server": {
                "authorization": {"credentials_file": str(tmp_path / "token")},
                "static_configs": [{"targets": [server.url.removeprefix("http://")]}],
            },
        }
        with prometheus(tmp_path, impatient(ALERTS), scrapes) as seen:
            watched = Watched(node, port, seen)
            watched.start_node()
            work_is_counted(watched, torch)
            a_task_for_nobody(watched, torch)
            a_task_that_dies(watched, torch)
            a_machine_that_is_killed(watched)
            counts_go_on(watched, torch)


def work_is_counted(watched: Watched, torch: Torch) -> None:
    assert torch.enqueue("echo done", role="developer", check="true").result(60).succeeded
    NovaOrchestrator("operator").send_message("dev-1", "echo a message")
    ended = 'sum(torch_tasks_ended_total{end="succeeded",role="developer"})'
    watched.shows(ended, 1)
    watched.shows('sum(torch_messages_settled_total{state="acknowledged",role="developer"})', 1)
    watched.shows("sum(torch_message_delivery_seconds_count)", 1)
    watched.shows("sum(torch_task_check_seconds_count)", 1)
    watched.shows('torch_agents{state="ready"}', 1)
    watched.shows("sum(torch_agent_memory_bytes) > bool 0", 1)
    watched.shows("torch_fleet_readable", 1)
    empty = [query for query in dashboards() if not watched.seen.query(query)]
    assert len(empty) < len(dashboards())
    for always in ("sum by (state) (torch_agents)", "sum(torch_broker_up)", "max(torch_beat_leads)"):
        assert always in dashboards()
        assert always not in empty


def a_task_for_nobody(watched: Watched, torch: Torch) -> None:
    task = torch.enqueue("echo nobody", role="nobody")
    watched.fires("TorchTasksUnroutable", "other")
    watched.fires("TorchPersonWaitedFor", "unroutable")
    task.cancel()
    watched.ends("TorchTasksUnroutable")


def a_task_that_dies(watched: Watched, torch: Torch) -> None:
    task = torch.enqueue("kill -9 $PPID $$", role="developer", max_retries=0)
    watched.fires("TorchDeadLetters", "1 dead letters")
    watched.shows('sum(torch_tasks_ended_total{end="dead"})', 1)
    DeadLetters(fleet()).drop(task.id)
    watched.ends("TorchDeadLetters")


def a_machine_that_is_killed(watched: Watched) -> None:
    watched.worker.kill(signal.SIGKILL)
    watched.fires("TorchNotScraped", "torch-nodes")
    watched.fires("TorchNodeSilent", "node-a")
    watched.start_node()
    watched.ends("TorchNotScraped")
    watched.ends("TorchNodeSilent")


def counts_go_on(watched: Watched, torch: Torch) -> None:
    """What was counted before the machine was killed still counts."""
    assert torch.enqueue("echo again", role="developer").result(60).succeeded
    watched.shows('sum(torch_tasks_ended_total{end="succeeded"})', 2)
