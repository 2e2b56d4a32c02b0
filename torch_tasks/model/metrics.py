"""Every metric that Torch shows to Prometheus: its name, type and labels, and what it means.

A label holds one of few values: a role, a kind, a state, an account, an agent's id; never a task's id or a text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

WAITS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
"""The bounds in seconds for what takes minutes or hours."""
QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""The bounds in seconds for what should take less than one."""


class MetricType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class ShownBy(StrEnum):
    """Which process shows a metric; each is shown by one, so that no sum counts anything twice."""

    NODE = "node"
    """Each node worker, of its machine."""
    SERVER = "server"
    """The server, of the fleet."""


@dataclass(frozen=True)
class Metric:
    name: str
    type: MetricType
    meaning: str
    labels: tuple[str, ...] = ()
    shown_by: ShownBy = ShownBy.NODE
    bounds: tuple[float, ...] = field(default=())

    @property
    def shown_name(self) -> str:
        """The name that queries use."""
        return f"{self.name}_total" if self.type is MetricType.COUNTER else self.name


METRICS: dict[str, Metric] = {}
"""All of them by their names."""


def _declare(metric: Metric) -> Metric:
    METRICS[metric.name] = metric
    return metric


def _count(name: str, meaning: str, *labels: str, by: ShownBy = ShownBy.NODE) -> Metric:
    return _declare(Metric(name, MetricType.COUNTER, meaning, labels, by))


def _gauge(name: str, meaning: str, *labels: str, by: ShownBy = ShownBy.NODE) -> Metric:
    return _declare(Metric(name, MetricType.GAUGE, meaning, labels, by))


def _spread(
    name: str, meaning: str, *labels: str, bounds: tuple[float, ...] = WAITS, by: ShownBy = ShownBy.NODE
) -> Metric:
    return _declare(Metric(name, MetricType.HISTOGRAM, meaning, labels, by, bounds))


# ── tasks, counted by the agent workers ──────────────────────────────────────────────────────────────────────────────

TASKS_TAKEN = _count("torch_tasks_taken", "Tasks that an agent took, each try once.", "role", "kind")
TASKS_ENDED = _count("torch_tasks_ended", "Tasks that ended, by how; role `none`: at no agent.", "role", "kind", "end")
TASKS_REDELIVERED = _count("torch_tasks_redelivered", "Tasks that came again because a worker was lost.", "role")
TASKS_TAKEN_OVER = _count("torch_tasks_taken_over", "Tasks taken over from an agent that is dead.", "role")
TASKS_RETRIED = _count("torch_tasks_retried", "Tasks that will be tried again, by why.", "role", "failure")
TASK_QUEUE_SECONDS = _spread("torch_task_queue_seconds", "From being accepted until an agent took it.", "role")
TASK_RUN_SECONDS = _spread("torch_task_run_seconds", "The last try, from its beginning to its end.", "role", "kind")
TASK_CHECK_SECONDS = _spread("torch_task_check_seconds", "How long check commands took.")
TASK_TOTAL_SECONDS = _spread("torch_task_total_seconds", "From being accepted to the end.", "role")

# ── messages and programs, counted by the agent workers ──────────────────────────────────────────────────────────────

MESSAGES_SETTLED = _count("torch_messages_settled", "Messages that reached their end at an agent.", "role", "state")
MESSAGE_SECONDS = _spread(
    "torch_message_delivery_seconds", "From being sent until the agent's program had it.", "role", bounds=QUICK
)
UNKNOWN_DELIVERIES = _count(
    "torch_deliveries_unknown",
    "Prompts and messages of which nothing shows whether the program got them; none is sent twice.",
    "role",
    "what",
)
PROGRAMS_STARTED = _count("torch_programs_started", "Starts of agents' programs, the first included.", "role", "kind")
DESK_REQUESTS = _count(
    "torch_desk_requests", "Requests out of agents' panes: `served`, or the error's name.", "outcome"
)

# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

ACCOUNT_CALLS = _count("torch_account_calls", "Prompts given to models, as budgets count them.", "account", "role")
ACCOUNT_LIMITS = _count("torch_account_limits", "How often an agent ran into its account's usage limit.", "account")
TOKENS = _count("torch_tokens", "Tokens that tasks used: `input`, `cached`, `output`.", "account", "role", "direction")
UNPRICED = _count("torch_tokens_without_price", "Of these, what no cost is known of, by model.", "model")
COST = _count("torch_cost_usd", "What tasks cost: as the program says, else by prices.toml.", "account", "role")

# ── time, counted by beat and by the node workers ────────────────────────────────────────────────────────────────────

CHECKINS_FIRED = _count("torch_checkins_fired", "Slots of check-ins that this machine's beat fired.")
CHECKINS_MISSED = _count("torch_checkins_missed", "Slots that were left out, as their misfire policy wants.")
CHECKIN_LATE_SECONDS = _spread("torch_checkin_late_seconds", "How late slots fired.", bounds=QUICK)
CHECKINS_DELIVERED = _count("torch_checkins_delivered", "Fires of check-ins by what became of them.", "outcome")

# ── Torch itself ─────────────────────────────────────────────────────────────────────────────────────────────────────

WORKERS_CRASHED = _count("torch_agent_workers_crashed", "Agent workers that died.", "role", "kind")
WORKER_BACK_SECONDS = _spread(
    "torch_agent_worker_back_seconds", "From the death of an agent worker until its successor's heartbeat.", "role"
)
LEASE_RENEWALS = _count("torch_lease_renewals", "Renewals of the leases on what this machine's processes hold.")
LEASES_LOST = _count("torch_leases_lost", "Leases that ended before they were renewed.")
RECONCILIATIONS = _count("torch_reconciliations", "How often a process put back what a broker had forgotten.")

# ── what a machine is like, read at each scrape ──────────────────────────────────────────────────────────────────────

NODE_INFO = _gauge("torch_node_info", "Always 1: which machine and which Torch this is.", "node", "version")
KEPT_AGENTS = _gauge("torch_node_agents", "The agents of this machine, by how their workers stand.", "role", "state")
AGENT_MEMORY = _gauge("torch_agent_memory_bytes", "Resident memory of the processes in an agent's pane.", "agent")
AGENT_CPU = _gauge("torch_agent_cpu_seconds", "Processor time of those that live, and of their dead.", "agent")
AGENT_PROCESSES = _gauge("torch_agent_processes", "How many processes there are in an agent's pane.", "agent")
DISK_FREE = _gauge("torch_disk_free_bytes", "Free on the disk of the state folder.")
DISK_SIZE = _gauge("torch_disk_size_bytes", "The size of that disk.")
BROKER_UP = _gauge("torch_broker_up", "1 if this machine reaches the broker.")
BROKER_PING_SECONDS = _gauge("torch_broker_ping_seconds", "How long the broker took to answer now.")
SPOOLED_MESSAGES = _gauge("torch_messages_spooled", "Messages on this machine's disk that the broker has yet to take.")
CERTIFICATE_ENDS = _gauge(
    "torch_certificate_ends_seconds",
    "When a certificate of this machine ends, in seconds since 1970: `broker`, `server`, or the node's own.",
    "certificate",
)

# ── the fleet, read by the server at each scrape ─────────────────────────────────────────────────────────────────────


def _fleet(name: str, meaning: str, *labels: str) -> Metric:
    return _gauge(name, meaning, *labels, by=ShownBy.SERVER)


FLEET_READABLE = _fleet("torch_fleet_readable", "1 if the broker answered; else nothing else of the fleet is shown.")
AGENTS = _fleet("torch_agents", "Agents by state; `offline` are those without a heartbeat.", "role", "state")
AGENTS_BUSY = _fleet("torch_agents_busy", "Agents that have a task.", "role")
AGENTS_HELD = _fleet("torch_agents_held", "Agents that are paused or stopped.", "role")
TASKS_WAITING = _fleet(
    "torch_tasks_waiting", "Tasks that wait for an able agent, by the role that they ask for.", "role"
)
TASKS_OLDEST = _fleet("torch_tasks_waiting_oldest_seconds", "How long the oldest of them has waited.", "role")
TASKS_UNROUTABLE = _fleet("torch_tasks_unroutable", "Those that no live agent is able to take.", "role")
UNROUTABLE_OLDEST = _fleet("torch_tasks_unroutable_oldest_seconds", "How long the oldest of those has waited.", "role")
TASKS_PENDING = _fleet("torch_tasks_pending", "Tasks that wait for other tasks.")
DEAD_LETTERS = _fleet("torch_dead_letters", "Tasks out of tries, and messages that could not be read.")
MESSAGES_WAITING = _fleet("torch_messages_waiting", "Messages in agents' inboxes and in the operator's.")
MESSAGES_DEAD = _fleet("torch_messages_dead", "Messages that only a person can send again, among the latest 1000.")
PERSON_NEEDED = _fleet("torch_person_needed", "What waits for a person, as `torch-tasks summary` lists it.", "kind")
PERSON_OLDEST = _fleet("torch_person_needed_oldest_seconds", "How long the oldest of these has been waiting.", "kind")
ACCOUNT_PARKED = _fleet("torch_account_parked", "1 while an account rests after a usage limit.", "account")
BUDGET_USED = _fleet("torch_budget_used", "What is used of a budget in its present window.", "account", "budget")
BUDGET_LIMIT = _fleet("torch_budget_limit", "The budget, if there is one.", "account", "budget")
NODE_UP = _fleet("torch_node_up", "1 if a node's heartbeat is fresh; nodes that left in order are not shown.", "node")
NODE_SILENT = _fleet("torch_node_silent_seconds", "How long ago its last heartbeat was.", "node")
CHECKIN_OVERDUE = _fleet("torch_checkin_overdue_seconds", "How long the slot that should fire first is overdue.")
BEAT_LEADS = _fleet("torch_beat_leads", "1 if a beat leads.")
BEAT_TURNS = _fleet("torch_beat_turns", "How often another beat took the lead.")
BROKER_MEMORY = _fleet("torch_broker_memory_bytes", "What the broker uses.")
BROKER_MEMORY_LIMIT = _fleet("torch_broker_memory_limit_bytes", "What it may use; 0: it has no limit.")
DENIALS = _fleet("torch_denials", "How often callers were refused what they may not do.")
API_REQUESTS = _count(
    "torch_api_requests", "Requests to the server, by their HTTP status.", "status", by=ShownBy.SERVER
)
API_SECONDS = _spread(
    "torch_api_request_seconds", "How long requests took, without streams.", bounds=QUICK, by=ShownBy.SERVER
)
