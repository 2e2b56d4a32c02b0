"""What ``celery -A torch_tasks worker`` runs: with ``--id`` an agent worker, with ``--node`` the node worker."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import click
from celery import signals
from celery.apps.worker import Worker
from celery.worker.control import control_command
from kombu.asynchronous import get_event_loop
from pydantic import ValidationError

from torch_tasks import keys
from torch_tasks.app import AGENT_OPTIONS, HOLDS_CHANGED, app
from torch_tasks.errors import InvalidTask, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.machine.agent_folder import agent_worker_name
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.fields import readable
from torch_tasks.settings import settings
from torch_tasks.started_by_name import AGENT_POOL
from torch_tasks.system.files import ring_all
from torch_tasks.system.loading import loading
from torch_tasks.system.log_records import log_as
from torch_tasks.system.loops import in_background
from torch_tasks.system.own_log import begin_log_early
from torch_tasks.workers.host.agent_worker import host_agent
from torch_tasks.workers.host.holds_watcher import HoldsWatcher

log = logging.getLogger(__name__)


class Program(Worker):
    """Celery's worker, as an agent worker or a node worker where its options say so."""

    holds: HoldsWatcher | None = None
    """Applies pauses and stops to this worker."""

    def __init__(
        self,
        app: Any = None,
        hostname: str | None = None,
        *,
        node_worker: bool = False,
        kept_agents: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        begin_log_early(settings())
        agent = AGENT_OPTIONS.take(options)
        options.update(without_gossip=True, without_mingle=True)
        options["heartbeat_interval"] = options.get("heartbeat_interval") or settings().events_heartbeat_seconds
        try:
            if "id" in agent:
                spec = _agent_spec(agent)
                hostname = f"{spec.id}@{settings().node}"
                options |= self._agent_worker(spec)
            elif node_worker:
                hostname = f"node@{settings().node}"
                options |= self._node_worker(kept_agents)
        except TorchError as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(error.exit_code) from None
        super().__init__(app, hostname, **options)

    def _agent_worker(self, spec: AgentSpec) -> dict[str, Any]:
        log_as(process=agent_worker_name(spec.id), agent=spec.id)
        self.holds = host_agent(spec)
        return {"queues": [keys.agent_queue(spec.id)], "pool_cls": AGENT_POOL, "concurrency": 1}

    def _node_worker(self, kept_agents: tuple[str, ...]) -> dict[str, Any]:
        with loading():  # 80 ms, which no agent worker needs
            from torch_tasks.workers.node.node_worker import host_node

        log_as(process="node")
        host_node(AgentSpec.parse_all(kept_agents) or settings().agents)
        self.holds = HoldsWatcher(fleet(), app.leases.intake)
        self.holds.begin(on_change=lambda: ring_all(settings().state_dir), unfinished=lambda: False)
        self.holds.watch()
        queues = [keys.SYSTEM_QUEUE, keys.node_queue(settings().node)]
        return {"queues": queues, "pool_cls": "threads", "concurrency": 4}

    def emit_banner(self) -> None:
        """Where each line of the log is an event, the banner is one."""
        if settings().log_format == "json":
            log.info("this worker starts\n%s", self.startup_info(artlines=False).strip())
        else:
            super().emit_banner()


@control_command(name=HOLDS_CHANGED)
def holds_changed(state: Any) -> dict[str, bool | str]:
    """Ask the broker what is paused and stopped; return why this worker begins nothing afterwards, if so."""
    holds = state.consumer.controller.holds
    if holds:
        holds.ask_broker()
    return {"ok": True, "held": (holds and holds.reason) or ""}


@signals.worker_shutting_down.connect
def _wake_the_loop(**_: Any) -> None:
    """A signal alone does not end the event loop's wait, and only another thread can wake the loop."""
    if loop := get_event_loop():
        in_background("wake the loop", partial(loop.call_soon, lambda: None))


def _agent_spec(fields: dict[str, Any]) -> AgentSpec:
    try:
        return AgentSpec.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise InvalidTask(f"this agent cannot be hosted: {readable(error)}") from None
