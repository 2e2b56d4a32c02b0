"""``torch-tasks up | down | logs``, and ``supervise``, which `up` starts."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from torch_tasks.broker.connection import connect
from torch_tasks.checkins.book import readiness
from torch_tasks.cli.output import waiting
from torch_tasks.client import Torch
from torch_tasks.errors import ProcessNotStarted, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.machine.stack import FLOWER_USER, Stack, Supervisor
from torch_tasks.model.agent import AgentSpec, AgentState
from torch_tasks.model.node import KeptState
from torch_tasks.settings import settings
from torch_tasks.store.tasks import demanded
from torch_tasks.system.terminal import make_log_visible

#: EXITED: after a failed start, its state is to be seen for a moment.
_BEFORE_READY = (AgentState.STARTING, AgentState.EXITED)
_AGENT = click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="ID:ROLE[:SKILL,SKILL[:KIND]]",
    help="An agent to keep alive; repeat for more (default: those in torch.toml).",
)
_BEAT = click.option("--beat/--no-beat", default=True, help="Run beat.")
_FLOWER = click.option("--flower/--no-flower", default=True, help="Run Flower.")


@click.command()
@_AGENT
@_BEAT
@_FLOWER
@click.option("--detach", is_flag=True, help="Return when everything is ready; `torch-tasks down` stops it.")
@click.option("--keep-agents", is_flag=True, help="Without --detach: leave the agents' panes open at the end.")
def up(agents: tuple[str, ...], beat: bool, flower: bool, detach: bool, keep_agents: bool) -> None:
    """Run broker, node worker, agent workers, beat and Flower on this machine until Ctrl-C."""
    kept = AgentSpec.parse_all(agents)
    stack = Stack(settings())
    stack.refuse_if_up()
    stack.check(kept)
    if settings().broker_url is not None:
        connect().ping()
    password, is_new = stack.flower_password()
    _end_on_signals()
    try:
        with waiting("starting"):
            _start(stack, kept, beat=beat, flower=flower)
        _print_stack(stack, password if is_new else None)
        if detach:
            return
        click.echo("Ctrl-C stops everything.")
        while stack.processes.find("up"):
            time.sleep(1)
        raise TorchError(
            f"the supervisor of this machine's stack has ended; see {stack.settings.state.logs / 'up.log'}"
        )
    except KeyboardInterrupt:
        click.echo("ending …")
        stack.down(keep_agents=keep_agents)
    except BaseException:
        stack.down(keep_agents=keep_agents)
        raise


def _start(stack: Stack, kept: Sequence[AgentSpec], *, beat: bool, flower: bool) -> None:
    """Start everything; an error names the agents that did not become ready, and why."""
    try:
        stack.up(kept, beat=beat, flower=flower)
    except ProcessNotStarted as error:
        missing: set[str] = set()
        with suppress(TorchError):
            missing = _not_ready(kept)
        reasons = [f"\nagent {agent} is not ready: {stack.last_words(agent)}" for agent in sorted(missing)]
        raise ProcessNotStarted(f"{error}{''.join(reasons)}") from None


def _end_on_signals() -> None:
    """Treat SIGTERM and a closed terminal like Ctrl-C, and ignore all three from the first on."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(*_: Any) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, end)


def _print_stack(stack: Stack, new_password: str | None) -> None:
    click.echo(f"broker  {settings().broker()}")
    for info in Torch().agents(online=True):
        state = ", ".join(filter(None, (info.state, info.hold_reason)))
        what = " ".join(filter(None, (info.role, ",".join(info.skills), f"({info.kind})")))
        click.echo(f"agent   {info.agent_id}: {what}, {state}")
    if running := stack.processes.find("flower"):
        click.echo(f"Flower  {running.facts['url']}  user {FLOWER_USER}")
        file = stack.settings.state.flower_password
        once = f"{new_password} (shown this once; kept in {file})"
        click.echo(f"        password {once if new_password else f'in {file}'}")


@click.command()
@click.option("--keep-agents", is_flag=True, help="Leave the agents' panes open; the next `up` adopts them.")
def down(keep_agents: bool) -> None:
    """Stop everything that `up` started: Flower, beat, the workers, the agents' panes, the broker."""
    with waiting("ending"):
        ended = Stack(settings()).down(keep_agents=keep_agents)
    click.echo(f"ended: {', '.join(ended)}" if ended else f"nothing was running in {settings().state_dir}")


@click.command(hidden=True)
@_AGENT
@_BEAT
@_FLOWER
def supervise(agents: tuple[str, ...], beat: bool, flower: bool) -> None:
    """Keep this machine's processes alive; `up` runs this."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s: %(levelname)s] %(message)s")
    make_log_visible(logging.getLogger())
    kept = [AgentSpec.parse(text) for text in agents]
    stack = Stack(settings())
    supervisor = Supervisor(stack, kept, beat=beat, flower=flower)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.leaving.set())

    def ready() -> bool:
        return (
            _agents_ready(kept, stack)
            and (not beat or readiness(fleet()).leads is not None)
            and (not flower or stack.flower_answers())
        )

    supervisor.run(ready, _fleet_shape)


def _fleet_shape() -> object:
    """What Flower shows only after a refresh: the agents that are online, and the queues that are read."""
    return {info.agent_id for info in Torch().agents(online=True)}, demanded(fleet().client)


def _agents_ready(kept: Sequence[AgentSpec], stack: Stack) -> bool:
    """Whether all agents to keep are ready; :class:`ProcessNotStarted` if one is in quarantine."""
    missing, running = _not_ready(kept), stack.processes.find("node")
    for node in Torch().nodes():
        if running is None or node.pid != running.pid:  # the entry of an earlier node worker
            continue
        for agent in node.agents:
            if agent.agent_id in missing and agent.state is KeptState.QUARANTINED:
                raise ProcessNotStarted(f"agent {agent.agent_id} does not start: {agent.reason}")
    return not missing


def _not_ready(kept: Sequence[AgentSpec]) -> set[str]:
    kept_by_nodes = [agent for node in Torch().nodes() for agent in node.agents]
    away = {agent.agent_id for agent in kept_by_nodes if agent.state is KeptState.RETIRED}
    wanted = {agent.id for agent in kept or settings().agents} - away
    return wanted - {info.agent_id for info in Torch().agents(online=True) if info.state not in _BEFORE_READY}


@click.command()
@click.argument("name", required=False)
@click.option("-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing what is added.")
def logs(name: str | None, lines: int, follow: bool) -> None:
    """Print the log of a process on this machine. NAME is an agent's id, or broker, node, beat, flower or up."""
    folder = settings().state.logs
    there = sorted(path.stem for path in folder.glob("*.log"))
    if name is None:
        click.echo("\n".join(there) or f"no logs in {folder}")
        return
    stem = next((stem for stem in (name, f"agent-{name}") if stem in there), None)
    if stem is None:
        raise TorchError(f"there is no log of {name!r} in {folder}; there are: {', '.join(there) or 'none'}")
    following = ["--follow=name", "--retry", f"--pid={os.getpid()}"] if follow else []
    argv = ["tail", f"--lines={lines}", *following, str(folder / f"{stem}.log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as tail, suppress(KeyboardInterrupt):
        assert tail.stdout
        for line in tail.stdout:
            click.echo(line.decode(errors="replace"), nl=False)
    sys.exit(tail.returncode)
