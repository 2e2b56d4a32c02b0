"""``supervise``, which ``up`` starts. Nothing answers before it has loaded, so it loads little."""

from __future__ import annotations

import logging
import signal

import click

from torch_tasks.checkins.readiness import readiness
from torch_tasks.client import Torch
from torch_tasks.fleet import fleet
from torch_tasks.machine.stack import Stack, Supervisor
from torch_tasks.model.agent import AgentSpec
from torch_tasks.settings import settings
from torch_tasks.store.tasks import demanded
from torch_tasks.system.own_log import FOR_PEOPLE, begin_log

AGENT = click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="ID:ROLE[:SKILL,SKILL[:KIND]]",
    help="An agent to keep alive; repeat for more (default: those in torch.toml).",
)
BEAT = click.option("--beat/--no-beat", default=True, help="Run beat.")
FLOWER = click.option("--flower/--no-flower", default=True, help="Run Flower.")


@click.command(hidden=True)
@AGENT
@BEAT
@FLOWER
def supervise(agents: tuple[str, ...], beat: bool, flower: bool) -> None:
    """Keep this machine's processes alive; `up` runs this."""
    logging.basicConfig(level=logging.INFO, format=FOR_PEOPLE)
    begin_log(logging.getLogger(), settings(), "up")
    kept = [AgentSpec.parse(text) for text in agents]
    stack = Stack(settings())
    supervisor = Supervisor(stack, kept, beat=beat, flower=flower)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.leaving.set())

    def ready() -> bool:
        return (
            _node_is_ready(stack)
            and (not beat or readiness(fleet()).leads is not None)
            and (not flower or stack.flower_answers())
            and (not stack.settings.serve or stack.server_answers())
        )

    supervisor.run(ready, _fleet_shape)


def _fleet_shape() -> object:
    """What Flower shows only after a refresh: the agents that are online, and the queues that are read."""
    return {info.agent_id for info in Torch().agents(online=True)}, demanded(fleet().client)


def _node_is_ready(stack: Stack) -> bool:
    running = stack.processes.find("node")
    return running is not None and any(node.pid == running.pid for node in Torch().nodes())
