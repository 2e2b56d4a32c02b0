"""The commands of a node: ``torch-tasks attach | screen | end-panes | check-agents``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

import click
import psutil

from torch_tasks.cli.output import one_line
from torch_tasks.client import Torch
from torch_tasks.errors import AgentUnavailable, BrokerUnreachable, NodeNotFound
from torch_tasks.machine.agent_folder import is_hosted
from torch_tasks.model.agent import AgentInfo, AgentSpec
from torch_tasks.monitoring.screens import LOOK_SECONDS, PIECE_BYTES, screens_of
from torch_tasks.settings import settings
from torch_tasks.state_folder import JOURNAL, TMUX
from torch_tasks.workers.host.journal import AgentJournal
from torch_tasks.workers.host.terminal import end_session
from torch_tasks.workers.programs.kind import program_of, require_startable
from torch_tasks.workers.tmux.pane import AgentPane
from torch_tasks.workers.tmux.server import AgentServer, require_tmux

#: For so long a server may outlive its last visit.
_ENDING_SECONDS = 2.0


@click.command()
@click.argument("agent_id")
@click.option("--read-only", is_flag=True, help="Look, do not type.")
def attach(agent_id: str, read_only: bool) -> None:
    """Attach this terminal to an agent's pane; C-b d leaves it. On another machine it says which command does.

    When the agent's program is started anew, the terminal goes along into its new pane.
    """
    place = _place(agent_id)
    if isinstance(place, AgentInfo):
        raise _elsewhere(place, "attach")
    require_tmux()
    argv = [
        "tmux",
        "-u",
        "-S",
        str(place / TMUX),
        "attach-session",
        *(["-r"] if read_only else []),
        "-t",
        f"={agent_id}",
    ]
    os.environ.pop("TMUX", None)  # an agent's server is another one than the one we may be in
    server = AgentServer(place / TMUX)
    while True:
        before = server.listener()
        code = subprocess.run(argv, check=False).returncode
        if code == 0 or before is None or not _has_ended(server, before):
            sys.exit(code)
        _await_pane(agent_id, server)


def _has_ended(server: AgentServer, process: psutil.Process) -> bool:
    """The server of before is gone: its visitors leave a moment earlier."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while server.listener() == process:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _await_pane(agent_id: str, server: AgentServer) -> None:
    """The pane has ended: wait for the one in which the agent's program is started again."""
    deadline = time.monotonic() + settings().agent_start_seconds
    with suppress(KeyboardInterrupt):
        while is_hosted(server.socket.parent) and time.monotonic() < deadline:
            if server.listener() is not None:
                return
            time.sleep(LOOK_SECONDS)
    raise AgentUnavailable(f"the pane of {agent_id} has ended; 'torch-tasks agents' tells whether it lives")


@click.command()
@click.argument("agent_id")
@click.option("--history", type=click.IntRange(0), default=0, help="So many lines from before the screen, too.")
@click.option("--explain", is_flag=True, help="Tell instead what the agent is doing, and what says so.")
@click.option("-f", "--follow", is_flag=True, help="Show it again whenever it changes, until Ctrl-C.")
def screen(agent_id: str, history: int, explain: bool, follow: bool) -> None:
    """Print what an agent's pane shows, also when it is on another machine."""
    place = _place(agent_id)
    if isinstance(place, AgentInfo):
        if history or explain:
            raise _elsewhere(place, "screen")
        _print(screens_of(place), follow)
        return
    journal = AgentJournal.read(place / JOURNAL)
    pane = AgentPane.adopt(place / TMUX, journal.pane) if journal and journal.pane else None
    if journal is None or pane is None:
        raise AgentUnavailable(
            f"agent {agent_id} has no pane at {place / 'tmux'}; 'torch-tasks agents' tells whether it lives"
        )
    try:
        if explain:
            if journal.spec is None:
                raise AgentUnavailable(f"the worker of {agent_id} is of an older version; start it again")
            program = program_of(journal.spec, place, Path(journal.folder or "/"))
            for source, said in program.explain(pane):
                click.echo(f"{source + ':':<15}{said}")
        else:
            _print(_seen(pane, history), follow)
    finally:
        pane.close()


def _seen(pane: AgentPane, history: int) -> Generator[str, None, None]:
    """The pane of this machine, now and after each change."""
    last: str | None = None
    while True:
        if last != (now := pane.screen(history)):
            last = now
            yield now
        time.sleep(LOOK_SECONDS)


def _print(screens: Generator[str, None, None], follow: bool) -> None:
    """The first of them, or all: each in the place of the one before on a terminal, else below a line with the time."""
    is_terminal = sys.stdout.isatty()
    with closing(screens), suppress(KeyboardInterrupt):
        for screen in screens:
            if follow:
                click.echo("\x1b[H\x1b[2J" if is_terminal else f"── {datetime.now():%H:%M:%S} ──", nl=not is_terminal)
            # What comes from another machine must not steer this terminal.
            click.echo("\n".join(one_line(line, PIECE_BYTES) for line in screen.split("\n")))
            if not follow:
                return


def _place(agent_id: str) -> Path | AgentInfo:
    """The agent's folder on this machine; else what the fleet knows of it. What is hosted here needs no broker."""
    folder = settings().state.agent(agent_id)
    known = (folder / JOURNAL).exists()
    if known and is_hosted(folder):
        return folder
    try:
        info = Torch().agent(agent_id)
    except BrokerUnreachable:
        if known:
            return folder
        raise
    return Path(info.tmux_socket).parent if info.host == socket.gethostname() else info


def _elsewhere(info: AgentInfo, command: str) -> AgentUnavailable:
    """Where the agent lives, and the command that does it there."""
    address = info.host
    with suppress(NodeNotFound):
        address = Torch().node(info.node).address or address
    terminal = "-t " if command == "attach" else ""
    return AgentUnavailable(
        f"agent {info.agent_id} lives on node {info.node} ({info.host}), not here; run: "
        f"ssh {terminal}{address} torch-tasks {command} {info.agent_id}"
    )


@click.command(hidden=True)
def end_panes() -> None:
    """End every pane that the state folder knows of; `down` runs this after the workers are gone."""
    for folder in settings().state.agents():
        AgentPane(AgentServer(folder / TMUX), "%0").end()
        journal = AgentJournal.read(folder / JOURNAL)
        if journal and journal.session:
            end_session(journal.session, journal.agent_id)


@click.command(hidden=True)
@click.argument("agents", nargs=-1)
def check_agents(agents: tuple[str, ...]) -> None:
    """Refuse agents that cannot be started here, those of torch.toml if none is named; `up` runs this first."""
    for spec in [AgentSpec.parse(text) for text in agents] or settings().agents:
        require_startable(spec)
