"""``torch-tasks up``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from torch_tasks.broker.connection import connect
from torch_tasks.caller import CallerKind
from torch_tasks.cli.console import reachable
from torch_tasks.cli.output import waiting
from torch_tasks.cli.supervise import AGENT, BEAT, FLOWER
from torch_tasks.client import Torch
from torch_tasks.errors import BrokerAway, ProcessNotStarted
from torch_tasks.fleet import fleet
from torch_tasks.machine.broker_logins import hand_down_login
from torch_tasks.machine.fleet_keys import require_own_fleet
from torch_tasks.machine.own_server import metrics_at, server_of
from torch_tasks.machine.stack import FLOWER_USER, STACK_SECONDS, Stack
from torch_tasks.model.agent import AgentSpec, AgentState
from torch_tasks.model.node import KeptAgent, KeptState
from torch_tasks.settings import settings, unknown_variables
from torch_tasks.signing.keyring import keyring
from torch_tasks.system.processes import end_on_signals

#: EXITED: after a failed start, its state is to be seen for a moment.
_BEFORE_READY = (AgentState.STARTING, AgentState.EXITED)


@click.command()
@AGENT
@BEAT
@FLOWER
@click.option("--detach", is_flag=True, help="Return when everything is ready; `torch-tasks down` stops it.")
@click.option("--keep-agents", is_flag=True, help="Without --detach: leave the agents' panes open at the end.")
def up(agents: tuple[str, ...], beat: bool, flower: bool, detach: bool, keep_agents: bool) -> None:
    """Run broker, node worker, agent workers, beat, the server and Flower on this machine until Ctrl-C."""
    kept = AgentSpec.parse_all(agents)
    stack = Stack(settings())
    stack.refuse_if_up()
    hand_down_login(settings())
    _warn_of_unknown_variables()
    unready = stack.check(kept)
    if settings().broker_url is not None:
        connect().ping()
        require_own_fleet(fleet())
    _say_keys()
    password, is_new = stack.flower_password()
    end_on_signals()
    try:
        with waiting("starting"):
            supervisor = stack.up(kept, beat=beat, flower=flower)
            unready = await_agents(stack, kept, unready)
        _print_stack(stack, password if is_new else None)
        for line in _unready_lines(unready):
            click.echo(f"Error: {line}", err=True)
        if detach:
            sys.exit(1 if unready else 0)
        click.echo("Ctrl-C stops everything.")
        while supervisor.alive:
            time.sleep(1)
        if stack.is_ended_by_order():
            click.echo("ended by 'torch-tasks down'")
            return
        raise _supervisor_has_ended(stack)
    except KeyboardInterrupt:
        click.echo("ending …")
        stack.down(keep_agents=keep_agents, only_mine=True)
        sys.exit(1 if unready else 0)
    except SystemExit:
        raise
    except BaseException:
        stack.down(keep_agents=keep_agents, only_mine=True)
        raise


def await_agents(stack: Stack, kept: Sequence[AgentSpec], unstartable: Mapping[str, str]) -> dict[str, str]:
    """Wait until each agent is ready, or will not be; returns why not, by the agents' ids.

    :class:`ProcessNotStarted` if not a single one can be started.
    """
    limit = stack.settings.agent_start_seconds + STACK_SECONDS
    deadline = time.monotonic() + limit
    wanted = {agent.id for agent in kept or settings().agents}
    missing, given_up = wanted - set(unstartable), dict(unstartable)
    held_back: dict[str, str] = {}
    while missing - set(given_up) - set(held_back) and time.monotonic() < deadline:
        if not stack.processes.find("up"):
            raise _supervisor_has_ended(stack)
        with suppress(BrokerAway):
            missing &= _not_ready(kept)
            failed = {agent: why for agent, why in _in_quarantine(stack).items() if agent in missing}
            given_up |= {agent: f"{_crashes(why)}: {stack.last_words(agent)}" for agent, why in failed.items()}
            held_back = {agent: why for agent, why in _held_back(stack).items() if agent in missing}
        time.sleep(0.1)
    late = f"nothing shows within {limit:g} s that it is"
    unready = {agent: f"{late}. {stack.last_words(agent)}" for agent in missing} | held_back | given_up
    if wanted and set(given_up) == wanted:
        raise ProcessNotStarted("\n".join(_unready_lines(unready)))
    return unready


def _crashes(reason: str) -> str:
    """How often the agent's worker has crashed; the end of its log is printed at more length."""
    return reason.partition(":")[0]


def _unready_lines(reasons: Mapping[str, str]) -> list[str]:
    return [f"agent {agent} is not ready: {reason}" for agent, reason in sorted(reasons.items())]


def _supervisor_has_ended(stack: Stack) -> ProcessNotStarted:
    log = stack.settings.state.logs / "up.log"
    return ProcessNotStarted(f"the supervisor of this machine's stack has ended; see {log}")


def _warn_of_unknown_variables() -> None:
    """Name what looks like a setting and is none; one that is near a setting is refused by the check."""
    for name, meant in unknown_variables().items():
        if not meant:
            click.echo(f"note: {name} is no setting of Torch and is not read", err=True)


def _say_keys() -> None:
    """Have this machine's key ready, or refuse; say so where that founds a fleet."""
    folder = settings().keys_folder
    is_new = not folder.exists()
    keyring().identity(CallerKind.NODE)
    if is_new:
        click.echo(f"keys    a new fleet, {keyring().fleet}; the key of its root is in {folder}")


def _print_stack(stack: Stack, new_password: str | None) -> None:
    click.echo(f"broker  {settings().broker()}")
    for info in Torch().agents(online=True):
        unboxed = info.sandbox if info.sandbox.startswith("not") else ""
        state = ", ".join(filter(None, (info.state, info.hold_reason, unboxed)))
        program = " ".join(filter(None, (info.kind, info.release, info.release_state)))
        what = " ".join(filter(None, (info.role, ",".join(info.skills), f"({program})")))
        click.echo(f"agent   {info.agent_id}: {what}, {state}")
    if stack.server_answers() and (own := server_of(stack.settings.state)):
        click.echo(f"server  {own.url}  your own token is in {stack.settings.state.server_token}")
        click.echo(f"console {reachable(own.url)}/  'torch-tasks console' logs you in")
    if metrics := metrics_at(stack.settings.state):
        click.echo(f"metrics {metrics}")
    if running := stack.processes.find("flower"):
        click.echo(f"Flower  {running.facts['url']}  user {FLOWER_USER}")
        file = stack.settings.state.flower_password
        once = f"{new_password} (shown this once; kept in {file})"
        click.echo(f"        password {once if new_password else f'in {file}'}")


def _in_quarantine(stack: Stack) -> dict[str, str]:
    """Why this stack's node worker has given agents up, by their ids."""
    agents = _kept_here(stack)
    return {agent.agent_id: agent.reason for agent in agents if agent.state is KeptState.QUARANTINED}


def _kept_here(stack: Stack) -> list[KeptAgent]:
    running = stack.processes.find("node")
    own = [node for node in Torch().nodes() if running and node.pid == running.pid]  # else of an earlier node worker
    return [agent for node in own for agent in node.agents]


def _held_back(stack: Stack) -> dict[str, str]:
    """Why this stack's node worker does not start agents now, by their ids."""
    agents = _kept_here(stack)
    return {agent.agent_id: agent.reason for agent in agents if agent.state is KeptState.RESTARTING and agent.reason}


def _not_ready(kept: Sequence[AgentSpec]) -> set[str]:
    kept_by_nodes = [agent for node in Torch().nodes() for agent in node.agents]
    away = {agent.agent_id for agent in kept_by_nodes if agent.state is KeptState.RETIRED}
    wanted = {agent.id for agent in kept or settings().agents} - away
    return wanted - {info.agent_id for info in Torch().agents(online=True) if info.state not in _BEFORE_READY}
