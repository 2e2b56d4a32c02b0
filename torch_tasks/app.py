"""The Celery application. ``celery -A torch_tasks worker|beat|flower|inspect …`` all work with it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from typing import Any

from celery import Celery, signals
from celery.loaders.app import AppLoader
from click import Option
from kombu.utils.objects import cached_property

from torch_tasks import keys
from torch_tasks.broker.connection import KEEPALIVE, broker_errors
from torch_tasks.broker.logins import let_flower_in
from torch_tasks.broker.tls import client_options
from torch_tasks.caller import own_desk
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.broker_users import BrokerRole, role_of
from torch_tasks.model.host import AgentHost, NodeHost
from torch_tasks.model.options import FieldOptions
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import PRIORITY_STEPS, Priority, TaskSpec
from torch_tasks.redaction import protect_files
from torch_tasks.settings import Settings, settings
from torch_tasks.started_by_name import AGENT_POOL, BEAT, CONSUMER, DESK_RESULTS, SCHEDULER, WORKER
from torch_tasks.system.log_records import without_result
from torch_tasks.system.own_log import begin_log
from torch_tasks.transport.leases import Leases

RUN = "torch.run"
CHECKIN = "torch.checkin"

# The names of the control commands.
#: To every agent worker: a queue is demanded for the first time.
ANNOUNCE_QUEUE = "torch_demand"
#: To an agent worker: the answer that its agent waits for.
ANSWER = "torch_answer"
#: To an agent worker: the record of its task has changed.
LOOK = "torch_look"
#: To an agent worker: report what your agent's terminal uses of the machine.
RESOURCES = "torch_resources"
#: To an agent worker: publish what the agent changed in a task.
DIFF = "torch_diff"
#: To an agent worker: a client watches your agent's screen.
SHOW = "torch_show"
#: To an agent worker: reply with rows from above your agent's screen.
SCROLLBACK = "torch_scrollback"
#: To an agent worker: a person takes your agent's pane over, types into it, gives it back.
TAKEOVER = "torch_takeover"
#: To an agent worker: reply with what your agent is doing, and the evidence for it.
EXPLAIN = "torch_explain"
#: To every worker: something was paused, resumed, stopped or started.
HOLDS_CHANGED = "torch_holds_changed"
#: To an agent worker: your agent is to end.
RETIRE = "torch_retire"


_reading = threading.RLock()


class InstalledModules(AppLoader):
    """Imports the app's modules from where they are installed, and those of ``--include`` through PYTHONPATH.

    Celery's own loader looks into the working folder first: a ``redis.py`` there would hide the package.
    """

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        return self.import_module(module, package=package)


class TorchApp(Celery):
    """Celery, with a record and a ledger row for each task that is published, and workers that can host an agent."""

    amqp_cls = "torch_tasks.tasks.publishing:Publishing"
    control_cls = "torch_tasks.tasks.remote_control:RemoteControl"
    loader_cls = "torch_tasks.app:InstalledModules"
    host: AgentHost | None = None
    node: NodeHost | None = None
    _whole = False
    """Whether the configuration is read, with Torch's own part of it."""

    @property
    def conf(self) -> Any:
        """The configuration; of the threads that want it first, one reads it, and the others wait for all of it."""
        if not self._whole:
            with _reading:
                if not self.configured:
                    settings()  # what is wrong with them is said each time, and not once by Celery's half reading
                    super().conf.get("broker_url")  # Celery reads it when it is asked for a value
                    self._whole = True
        return super().conf

    @conf.setter
    def conf(self, configuration: Any) -> None:
        self._conf = configuration

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's own name for it
        """The worker program, by name: this layer may not import ``workers``."""
        return self.subclass_with_self(WORKER, name="Worker")

    @cached_property
    def Beat(self) -> Any:  # noqa: N802 - Celery's own name for it
        """Beat's program, by name, too."""
        return self.subclass_with_self(BEAT, name="Beat")

    @property
    def leases(self) -> Leases:
        """The messages that this process has taken and not settled yet."""
        leases: Leases = self.amqp.leases
        return leases

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, *, task_id: str | None = None, **options: Any
    ) -> Any:
        """Publish a task; one of Torch's is validated and gets an id, a priority, and a queue first."""
        if name != RUN:
            with broker_errors():
                return super().send_task(name, args, kwargs, task_id=task_id, **options)
        *earlier, asked = args or [{}]
        spec = accepted(asked, task_id, kwargs)
        queue = options.pop("queue", None) or queue_for(spec)
        options |= {"priority": spec.priority.step, **how_shown(spec, queue)}
        with broker_errors():
            return super().send_task(name, (*earlier, spec.wire()), task_id=spec.id, queue=queue, **options)


def accepted(asked: Any, task_id: str | None = None, fields: Mapping[str, Any] | None = None) -> TaskSpec:
    """A valid spec under Celery's id for the task, or :class:`~torch_tasks.errors.InvalidTask`.

    What is asked for is a spec, its fields, or its prompt alone; ``fields`` are more of them.
    """
    return TaskSpec.of(asked, {**(fields or {}), **({"id": task_id} if task_id else {})}).within(
        settings().prompt_limit_bytes, settings().task_limit_bytes
    )


def how_shown(spec: TaskSpec, queue: str) -> dict[str, str]:
    """What Flower and logs show of the task in the place of its arguments."""
    return {"argsrepr": spec.title, "kwargsrepr": f"{spec.priority}, through {queue}"}


def _places(chosen: Settings) -> dict[str, Any]:
    """Where messages and results are; an agent's pane has no broker, but the agent's desk."""
    if desk := own_desk():
        return {"broker_url": f"redis+socket://{desk}", "result_backend": DESK_RESULTS}
    broker = chosen.broker()
    if role_of(sys.argv) is BrokerRole.VIEWER:
        let_flower_in()
    secured = client_options(broker, chosen)
    tls = {"broker_use_ssl": secured, "redis_backend_use_ssl": secured} if secured else {}
    return {"broker_url": broker.celery_url, "result_backend": broker.results_url, **tls}


def _configuration() -> dict[str, Any]:
    chosen = settings()
    transport = {
        "priority_steps": list(PRIORITY_STEPS),
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE,
        # The longest wait for a task; a new task ends it at once. A viewer waits for none.
        "polling_interval": None if role_of(sys.argv) is BrokerRole.VIEWER else 15,
        "lease_seconds": chosen.lease_seconds,
        "delivery_limit": chosen.delivery_limit,
        "recovery_seconds": chosen.recovery_seconds,
        "limit_bytes": chosen.wire_limit_bytes,
    }
    return {
        **_places(chosen),
        "broker_transport_options": transport,
        "result_backend_transport_options": {"global_keyprefix": keys.CELERY_RESULTS},
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "task_default_queue": keys.SYSTEM_QUEUE,
        "task_default_priority": Priority.NORMAL.step,
        "task_create_missing_queues": True,
        # The record shows that a task was accepted; an event of its own would cost a quarter of the enqueue rate.
        "task_send_sent_event": False,
        "result_expires": int(chosen.result_days * 86400),
        "result_extended": True,
        "worker_pool": AGENT_POOL,
        "worker_consumer": CONSUMER,
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": 1,
        # The messages that a worker holds count against its limit after a lost connection, too.
        "worker_enable_prefetch_count_reduction": False,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_log_color": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_scheduler": SCHEDULER,
    }


_LOGS_AS = {BrokerRole.BEAT: "beat", BrokerRole.VIEWER: "flower"}
"""Under which names processes log; workers say it themselves, before they log."""


@signals.after_setup_logger.connect
@signals.after_setup_task_logger.connect
def _make_visible(logger: logging.Logger, **_: Any) -> None:
    """No value in a log line of a worker or of beat forges another line, steers a terminal or shows a secret."""
    state = settings().state
    protect_files(state.flower_password, state.server_token)
    logging.getLogger("celery.app.trace").addFilter(without_result)
    begin_log(logger, settings(), _LOGS_AS.get(role_of(sys.argv)))


@signals.import_modules.connect
def _make_flowers_log_visible(**_: Any) -> None:
    """Flower makes handlers of its own before it imports the app's modules, and logs nothing before."""
    if role_of(sys.argv) is BrokerRole.VIEWER:
        begin_log(logging.getLogger(), settings(), _LOGS_AS[BrokerRole.VIEWER])


AGENT_OPTIONS = FieldOptions(AgentSpec, prefix="agent_")
"""The options of an agent worker; ``machine/commands.py`` writes them, ``workers/program.py`` reads them."""


TASK_MODULES = (
    "torch_tasks.tasks.run",
    "torch_tasks.checkins.celery_tasks",
    "torch_tasks.orchestration.housekeeping",
    "torch_tasks.orchestration.node_tasks",
    "torch_tasks.orchestration.scale_task",
    "torch_tasks.backup.node_parts",
)
"""Where Torch's Celery tasks are."""

app = TorchApp("torch", include=[*TASK_MODULES])
app.add_defaults(_configuration)
app.user_options["worker"] |= {
    *AGENT_OPTIONS.parameters(),
    Option(["--node", "node_worker"], is_flag=True, help="Be this machine's node worker."),
    Option(
        ["--agent", "kept_agents"],
        multiple=True,
        metavar="ID:ROLE[:SKILL,SKILL[:KIND]]",
        help="With --node: keep this agent alive; repeat for more (default: those in torch.toml).",
    ),
}
