"""Writes the Grafana dashboards beside it: ``python compose/monitoring/generate_dashboards.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).with_name("dashboards")
SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT = 12, 8
_SMALL_WIDTH, _SMALL_HEIGHT = 4, 4


class Panel(NamedTuple):
    """One picture: its title, how it is drawn, its unit, and each query with what its lines are called."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"


def number(title: str, query: str, unit: str = "short") -> Panel:
    """A number as it is now."""
    return Panel(title, ((query, ""),), unit, "stat")


def lines(title: str, query: str, name: str, unit: str = "short") -> Panel:
    """Lines over time, of one query."""
    return Panel(title, ((query, name),), unit)


def quantiles(title: str, histogram: str, by: str = "") -> Panel:
    """The median, the 95th and the 99th percentile of a histogram."""
    labels, name = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    rate = f"sum by ({labels}) (rate({histogram}_bucket[$__rate_interval]))"
    shares = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    return Panel(title, tuple((f"histogram_quantile({share}, {rate})", word + name) for word, share in shares), "s")


def rates(counter: str, by: str, name: str, title: str, unit: str = "ops") -> Panel:
    """How often something happens in a second, by a label."""
    return lines(title, f"sum by ({by}) (rate({counter}_total[$__rate_interval]))", name, unit)


def ended(how: str = "") -> str:
    """The tasks that ended in an hour."""
    return f"sum(increase(torch_tasks_ended_total{{{how}}}[1h]))"


DASHBOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "fleet": (
        "Torch: the fleet",
        (
            number("Agents online", 'sum(torch_agents{state!="offline"})'),
            number("Agents with a task", "sum(torch_agents_busy)"),
            number("Tasks that wait", "sum(torch_tasks_waiting)"),
            number("Waits for a person", 'sum(torch_person_needed{kind!="limited",kind!="over budget"})'),
            number("Dead letters", "max(torch_dead_letters)"),
            number("Nodes up", "sum(torch_node_up)"),
            lines("Agents by state", "sum by (state) (torch_agents)", "{{state}}"),
            lines(
                "Busy share by role", "sum by (role) (torch_agents_busy) / sum by (role) (torch_agents)", "{{role}}"
            )._replace(unit="percentunit"),
            lines("What waits for a person", "sum by (kind) (torch_person_needed)", "{{kind}}"),
            lines("… for how long", "max by (kind) (torch_person_needed_oldest_seconds)", "{{kind}}", "s"),
            lines("Since each node's heartbeat", "max by (node) (torch_node_silent_seconds)", "{{node}}", "s"),
            Panel(
                "Messages",
                (
                    ("sum(torch_messages_waiting)", "wait in inboxes"),
                    ("sum(torch_messages_spooled)", "wait on disks"),
                    ("max(torch_messages_dead)", "dead"),
                ),
            ),
        ),
    ),
    "tasks": (
        "Torch: tasks",
        (
            number("Ended in an hour", ended()),
            number(
                "Succeeded of these",
                f"{ended('end=`succeeded`')} / {ended()}",
                "percentunit",
            ),
            number("Wait", "sum(torch_tasks_waiting)"),
            number("Oldest of these", "max(torch_tasks_waiting_oldest_seconds)", "s"),
            number("No agent is able to take", "sum(torch_tasks_unroutable)"),
            number("Wait for other tasks", "max(torch_tasks_pending)"),
            lines("Ends", "sum by (end) (rate(torch_tasks_ended_total[$__rate_interval]))", "{{end}}", "ops"),
            lines("Taken", "sum by (role) (rate(torch_tasks_taken_total[$__rate_interval]))", "{{role}}", "ops"),
            quantiles("Waiting in the queue", "torch_task_queue_seconds"),
            quantiles("Running", "torch_task_run_seconds", "role"),
            quantiles("Checks", "torch_task_check_seconds"),
            quantiles("From accepted to ended", "torch_task_total_seconds"),
            Panel(
                "Came again, taken over, tried again",
                (
                    ("sum(increase(torch_tasks_redelivered_total[$__rate_interval]))", "came again"),
                    ("sum(increase(torch_tasks_taken_over_total[$__rate_interval]))", "taken over"),
                    ("sum by (failure) (increase(torch_tasks_retried_total[$__rate_interval]))", "again: {{failure}}"),
                ),
            ),
            lines("Waiting by role", "sum by (role) (torch_tasks_waiting)", "{{role}}"),
        ),
    ),
    "agents": (
        "Torch: agents",
        (
            number("Kept alive", 'sum(torch_node_agents{state="running"})'),
            number("In quarantine", 'sum(torch_node_agents{state="quarantined"}) or vector(0)'),
            number("Paused or stopped", "sum(torch_agents_held)"),
            number("Programs started in an hour", "sum(increase(torch_programs_started_total[1h]))"),
            number("Workers died in an hour", "sum(increase(torch_agent_workers_crashed_total[1h])) or vector(0)"),
            number("Unknown deliveries in a day", "sum(increase(torch_deliveries_unknown_total[1d]))"),
            quantiles("Until a dead worker was replaced", "torch_agent_worker_back_seconds"),
            lines("Memory", "sum by (agent) (torch_agent_memory_bytes)", "{{agent}}", "bytes"),
            lines("Processors", "sum by (agent) (rate(torch_agent_cpu_seconds[$__rate_interval]))", "{{agent}}"),
            lines("Processes", "sum by (agent) (torch_agent_processes)", "{{agent}}"),
            lines("Workers by how they stand", "sum by (state) (torch_node_agents)", "{{state}}"),
            quantiles("Delivery of messages", "torch_message_delivery_seconds"),
            lines(
                "Messages by their end",
                "sum by (state) (rate(torch_messages_settled_total[$__rate_interval]))",
                "{{state}}",
                "ops",
            ),
            lines(
                "Requests at desks",
                "sum by (outcome) (rate(torch_desk_requests_total[$__rate_interval]))",
                "{{outcome}}",
                "reqps",
            ),
        ),
    ),
    "accounts": (
        "Torch: accounts",
        (
            number("Parked", "sum(torch_account_parked)"),
            number("Calls in a day", "sum(increase(torch_account_calls_total[1d]))"),
            number("Tokens in a day", "sum(increase(torch_tokens_total[1d]))"),
            number("Cost in a day", "sum(increase(torch_cost_usd_total[1d]))", "currencyUSD"),
            lines(
                "Calls", "sum by (account) (rate(torch_account_calls_total[$__rate_interval]))", "{{account}}", "ops"
            ),
            lines(
                "Tokens",
                "sum by (account, direction) (rate(torch_tokens_total[$__rate_interval]))",
                "{{account}} {{direction}}",
            ),
            lines(
                "Tokens of models without a price",
                "sum by (model) (rate(torch_tokens_without_price_total[$__rate_interval]))",
                "{{model}}",
            ),
            lines("Cost by role", "sum by (role) (increase(torch_cost_usd_total[1h]))", "{{role}}", "currencyUSD"),
            lines(
                "Used of each budget", "torch_budget_used / torch_budget_limit", "{{account}} {{budget}}", "percentunit"
            ),
            lines("Rests after a usage limit", "max by (account) (torch_account_parked)", "{{account}}"),
            lines("Usage limits", "sum by (account) (increase(torch_account_limits_total[1h]))", "{{account}}"),
        ),
    ),
    "torch": (
        "Torch itself",
        (
            number("Beat leads", "max(torch_beat_leads)"),
            number("Broker's memory", "max(torch_broker_memory_bytes)", "bytes"),
            number("First check-in overdue", "max(torch_checkin_overdue_seconds)", "s"),
            number("Certificate ends in", "min(torch_certificate_ends_seconds) - time()", "s"),
            number("Disk free", "min(torch_disk_free_bytes / torch_disk_size_bytes)", "percentunit"),
            number("Reach the broker", "sum(torch_broker_up)"),
            lines("The broker answers within", "torch_broker_ping_seconds", "{{instance}}", "s"),
            Panel(
                "The broker's memory",
                (("max(torch_broker_memory_bytes)", "used"), ("max(torch_broker_memory_limit_bytes)", "limit")),
                "bytes",
            ),
            Panel(
                "Leases, and what was put back",
                (
                    ("sum(rate(torch_lease_renewals_total[$__rate_interval]))", "renewed"),
                    ("sum(rate(torch_leases_lost_total[$__rate_interval])) or vector(0)", "lost"),
                    ("sum(rate(torch_reconciliations_total[$__rate_interval]))", "put back"),
                ),
                "ops",
            ),
            Panel(
                "Check-ins",
                (
                    ("sum(increase(torch_checkins_fired_total[$__rate_interval]))", "fired"),
                    ("sum(increase(torch_checkins_missed_total[$__rate_interval]))", "missed"),
                    ("sum by (outcome) (increase(torch_checkins_delivered_total[$__rate_interval]))", "{{outcome}}"),
                ),
            ),
            quantiles("Check-ins late by", "torch_checkin_late_seconds"),
            lines("Changes of the leading beat", "max(torch_beat_turns)", "turns"),
            rates("torch_api_requests", "status", "{{status}}", "Requests to the server", "reqps"),
            lines("Refusals", "delta(torch_denials[$__rate_interval])", "refused"),
            quantiles("The server answers within", "torch_api_request_seconds"),
        ),
    ),
}


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard, as Grafana reads it."""
    title, panels = DASHBOARDS[name]
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"torch-{name}",
        "title": title,
        "tags": ["torch"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "links": [{"type": "dashboards", "tags": ["torch"], "title": "Torch", "asDropdown": True, "keepTime": True}],
        "panels": list(placed(panels)),
    }


def placed(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """The numbers in a row above, the lines two by two below."""
    small = [panel for panel in panels if panel.kind == "stat"]
    large = [panel for panel in panels if panel.kind != "stat"]
    found = []
    for place, panel in enumerate(small):
        at = {"x": place * _SMALL_WIDTH, "y": 0, "w": _SMALL_WIDTH, "h": _SMALL_HEIGHT}
        found.append(drawn(panel, place + 1, at))
    for place, panel in enumerate(large):
        at = {"x": place % 2 * _WIDTH, "y": _SMALL_HEIGHT + place // 2 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
        found.append(drawn(panel, len(small) + place + 1, at))
    return found


def drawn(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    """One panel at its place."""
    targets = [
        {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query, "legendFormat": name}
        for place, (query, name) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def text(name: str) -> str:
    """The file of one dashboard."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name))
