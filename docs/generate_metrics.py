"""Writes docs/metrics.md from the declared metrics: ``python docs/generate_metrics.py``."""

from __future__ import annotations

from pathlib import Path

import yaml

from torch_tasks.model.metrics import METRICS, Metric, ShownBy

MONITORING = Path(__file__).parents[1] / "compose" / "monitoring"

HEAD = """\
# Metrics

Every node worker shows its machine to Prometheus at `http://127.0.0.1:5557/metrics`, and the server
(`torch-tasks serve`) the fleet at its own `/metrics`. Each metric is shown by one of them alone, so that sums over all
scrapes count nothing twice.

- A node needs no token there, and listens on loopback unless `TORCH_METRICS_HOST` says otherwise: names of agents,
  roles and accounts can be read there, and no text of any task or message. `TORCH_METRICS_PORT` is its port; if that is
  in use it takes a free one. `torch-tasks up` and `torch-tasks doctor` show its address. `TORCH_METRICS=false` turns
  it off.
- The server wants a token of a caller that may look (`torch-tasks token create --name prometheus --role viewer`), as
  Prometheus sends it with `authorization: {credentials_file: …}`.
- Counts go on where they were when a process is started again: each agent's lie in its folder (`tally.json`), those of
  the node worker and of beat in `tallies/`. An agent with nothing to do writes nothing. Labels hold roles, kinds,
  states, accounts, agents and models without a price, never a task.
- Roles that tasks ask for and no agent has are shown as `other`.

## Is it well?

Beside `/metrics`, each node worker shows `/healthz` (this process lives) and `/readyz` (it can do its job now), and so
do each beat, at port 5558 (`TORCH_METRICS_BEAT_PORT`, `beat.json` in the state folder), and the server at its own port.
`/readyz` answers within two seconds: with status 200, or with 503 and the reasons as JSON. What counts:

| asked | what must be so |
| --- | --- |
| all | the broker answers, and the fleet has put back what it forgot; 64 MiB of the state folder's disk are free |
| node worker | its agents run, and are not in quarantine; a beat leads, if check-ins are to come |
| beat | a beat leads, this one or another |
| server | it reads the fleet's events |

`torch-tasks doctor`, `SystemMonitor.get_system_health()` and the server's `fleet.health` look at the whole fleet.

## Alerts and dashboards

`compose/monitoring/alerts.yml` has rules for Prometheus, each with what is wrong and the command that helps; the last
table on this page lists them. `promtool test rules compose/monitoring/alerts_test.yml` tries each one
with what a real fault did to a real fleet.
`compose/monitoring/dashboards/` has five dashboards for Grafana: the fleet, tasks, agents, accounts, Torch itself.
`compose/monitoring.yaml` runs both beside the fleet of `compose/compose.yaml`; elsewhere
`compose/monitoring/prometheus.yml` shows what to scrape.

This page is generated from `torch_tasks/model/metrics.py` by `python docs/generate_metrics.py`.
"""
TITLES = {
    ShownBy.NODE: "## What each node worker shows, of its machine",
    ShownBy.SERVER: "## What the server shows, of the fleet",
}


def page() -> str:
    """The whole page."""
    tables = (f"\n{TITLES[by]}\n\n{table(by)}" for by in ShownBy)
    return HEAD + "".join(tables) + f"\n## Alerts\n\n{alerts()}"


def alerts() -> str:
    """Every alert, what fires it, and the fault with which that is tried."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    tests = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    tried = {
        case["alertname"]: test["name"].partition(": ")[2]
        for test in tests
        for case in test["alert_rule_test"]
        if len(case) > 2
    }
    rows = [
        f"| `{rule['alert']}` | {rule['labels']['severity']} | `{rule['expr']}` "
        f"| {rule.get('for', '')} | {tried[rule['alert']]} |"
        for group in groups
        for rule in group["rules"]
    ]
    head = "| Alert | Severity | When | For | Tried with |\n| --- | --- | --- | --- | --- |\n"
    return head + "\n".join(rows) + "\n"


def table(by: ShownBy) -> str:
    """The metrics that one kind of process shows."""
    rows = [row(metric) for metric in METRICS.values() if metric.shown_by is by]
    return "| Metric | Type | Labels | Meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"


def row(metric: Metric) -> str:
    """One metric, by the name that queries use."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.shown_name}` | {metric.type} | {labels} | {metric.meaning} |"


if __name__ == "__main__":
    Path(__file__).with_name("metrics.md").write_text(page())
