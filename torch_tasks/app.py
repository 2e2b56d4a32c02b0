"""The Celery application. ``celery -A torch_tasks worker|beat|flower|inspect …`` all work with it."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader
from click import Option, Parameter
from kombu.utils.objects import cached_property

from torch_tasks import keys
from torch_tasks.broker.connection import KEEPALIVE, broker_errors
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.host import AgentHost, NodeHost
from torch_tasks.model.options import FieldOptions
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import PRIORITY_STEPS, Priority, TaskSpec
from torch_tasks.settings import settings
from torch_tasks.started_by_name import AGENT_POOL, SCHEDULER, WORKER
from torch_tasks.transport.leases import Leases

RUN = "torch.run"
CHECKIN = "torch.checkin"
#: The control command by which every agent worker learns of a newly demanded queue.
ANNOUNCE_QUEUE = "torch_demand"
#: The control command by which an agent worker gets the answer that its agent waits for.
ANSWER = "torch_answer"
#: The control command that has an agent worker look at what its task's record says.
LOOK = "torch_look"
#: The control command by which an agent worker says what its agent's terminal uses of the machine.
RESOURCES = "torch_resources"
#: The control command by which an agent worker learns that its agent's screen is watched.
SHOW = "torch_show"
#: The control command by which every worker learns that something was paused, resumed, stopped or started.
HOLDS_CHANGED = "torch_holds_changed"
#: The control command by which an agent worker learns that its agent is to end.
RETIRE = "torch_retire"


class InstalledModules(AppLoader):
    """Imports the app's modules from where they are installed.

    Celery's own puts the working folder before all else while it imports them: a ``redis.py`` of the user's that lies
    there would be taken for the package. What a user adds with ``--include`` is found through PYTHONPATH.
    """

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        """Import it, though not from the working folder."""
        return self.import_module(module, package=package)


class TorchApp(Celery):
    """Celery, with two things added: what is published is noted and has a record, and workers can host an agent."""

    amqp_cls = "torch_tasks.tasks.publishing:Publishing"
    loader_cls = "torch_tasks.app:InstalledModules"
    host: AgentHost | None = None
    node: NodeHost | None = None

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's own name for it
        """The worker program; named, not imported, because nothing here may depend on ``workers``."""
        return self.subclass_with_self(WORKER, name="Worker")

    @property
    def leases(self) -> Leases:
        """What this process has taken from the broker and not settled yet."""
        leases: Leases = self.amqp.leases
        return leases

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, *, task_id: str | None = None, **options: Any
    ) -> Any:
        """Publish a task, with what it must have before: valid fields, an id, a priority, a queue."""
        if name != RUN:
            with broker_errors():
                return super().send_task(name, args, kwargs, task_id=task_id, **options)
        *earlier, asked = args or [{}]
        spec = accepted(asked, task_id)
        queue = options.pop("queue", None) or queue_for(spec)
        options |= {
            "priority": spec.priority.step,
            "argsrepr": spec.title,
            "kwargsrepr": f"{spec.priority}, through {queue}",
        }
        with broker_errors():
            return super().send_task(name, (*earlier, spec.wire()), kwargs, task_id=spec.id, queue=queue, **options)


def accepted(spec: TaskSpec | dict[str, Any], task_id: str | None = None) -> TaskSpec:
    """A valid spec under the id that Celery knows it by, or :class:`~torch_tasks.errors.InvalidTask`."""
    if isinstance(spec, TaskSpec):
        valid = spec.model_copy(update={"id": task_id}) if task_id else spec
    else:
        valid = TaskSpec.build(**{**spec, **({"id": task_id} if task_id else {})})
    return valid.within(settings().prompt_limit_bytes)


def _configuration() -> dict[str, Any]:
    chosen = settings()
    url = chosen.broker().url.get_secret_value()
    transport = {
        "priority_steps": list(PRIORITY_STEPS),
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE,
        # How long one wait for a task lasts; a new task ends it at once.
        "polling_interval": 15,
        "lease_seconds": chosen.lease_seconds,
        "delivery_limit": chosen.delivery_limit,
        "recovery_seconds": chosen.recovery_seconds,
    }
    return {
        "broker_url": url,
        "result_backend": f"torch_tasks.broker.results:Results+{url}",
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
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": 1,
        # What a worker holds counts against its limit, whatever connection it came through.
        "worker_enable_prefetch_count_reduction": False,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_scheduler": SCHEDULER,
    }


AGENT_OPTIONS = FieldOptions(AgentSpec, names={"kind": "--agent"}, prefix="agent_")
"""What makes a worker an agent worker; ``machine/commands.py`` writes them, ``workers/program.py`` reads them."""


def _worker_options() -> set[Parameter]:
    return {
        *AGENT_OPTIONS.parameters(),
        Option(["--node", "node_worker"], is_flag=True, help="Be this machine's node worker."),
        Option(
            ["--keep", "kept_agents"],
            multiple=True,
            metavar="ID:ROLE[:SKILL,SKILL[:KIND]]",
            help="With --node: keep this agent alive; repeat for more (default: those in torch.toml).",
        ),
    }


app = TorchApp(
    "torch",
    include=[
        "torch_tasks.tasks.run",
        "torch_tasks.checkins.celery_tasks",
        "torch_tasks.orchestration.housekeeping",
        "torch_tasks.orchestration.node_tasks",
        "torch_tasks.orchestration.scaling",
    ],
)
app.add_defaults(_configuration)
app.user_options["worker"].update(_worker_options())
