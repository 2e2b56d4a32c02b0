"""The commands of a node: ``torch-tasks attach | screen | kinds``, and what `up` and `down` run here."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

import click
import psutil
from pydantic import BaseModel

from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json, as_table, one_line
from torch_tasks.client import Torch
from torch_tasks.config_files import config_names
from torch_tasks.errors import AgentUnavailable, BrokerUnreachable, InvalidSettings, NodeNotFound
from torch_tasks.machine.agent_folder import is_hosted
from torch_tasks.model.agent import AgentInfo, AgentSpec
from torch_tasks.monitoring.screens import LOOK_SECONDS, PIECE_BYTES, screens_of
from torch_tasks.settings import settings
from torch_tasks.state_folder import JOURNAL, TMUX
from torch_tasks.workers.folders import AgentJournal
from torch_tasks.workers.host.terminal import end_session
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.kind import program_of, require_startable
from torch_tasks.workers.tmux.pane import AgentPane
from torch_tasks.workers.tmux.server import AgentServer, require_tmux

#: For so long a server may outlive its last visit.
_ENDING_SECONDS = 2.0
#: To be copied; it is no kind of its own.
_TEMPLATE = "generic"
#: How long a program may take to say its release.
_VERSION_SECONDS = 20


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


class InstalledKind(BaseModel):
    """One kind, as it is on this machine."""

    kind: str
    base: str | None = None
    """The kind that its file is laid over."""
    program: str = ""
    path: str | None = None
    """Where its program is; none if it is not on PATH."""
    release: str | None = None
    measured: str | None = None
    """The release with which it was measured how the program behaves."""
    error: str | None = None
    """What is wrong with its file."""


@click.command()
@JSON
def kinds(json_wanted: bool) -> None:
    """List the kinds of agents, and the releases of their programs here beside those that Torch was measured with.

    Exit code 1 if the file of one is wrong.
    """
    names = [name for name in config_names("agents") if name != _TEMPLATE]
    with ThreadPoolExecutor() as at_once:
        found = list(at_once.map(_installed, names))
    if json_wanted:
        as_json(found)
    else:
        as_table(("KIND", "BASE", "PROGRAM", "RELEASE"), [_kind_row(kind) for kind in found])
        for kind in found:
            if kind.error:
                click.echo(f"Error: {kind.error}", err=True)
    sys.exit(1 if any(kind.error for kind in found) else 0)


def _installed(name: str) -> InstalledKind:
    try:
        config = kind_config(name)
    except InvalidSettings as error:
        return InstalledKind(kind=name, error=str(error))
    path = config.path
    # A user's own program may do anything with the flag.
    release = _release(path, {**os.environ, **config.environment}) if path and config.measured else None
    return InstalledKind(
        kind=name,
        base=config.base,
        program=config.command[0],
        path=path,
        release=release,
        measured=config.measured,
    )


def _release(path: str, environment: Mapping[str, str]) -> str | None:
    """What the program says of itself, if it says it in time."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = re.search(rb"\d+(\.\d+)+\S*", done.stdout)
    return said[0].decode(errors="replace") if said else None


def _kind_row(kind: InstalledKind) -> tuple[str, str, str, str]:
    return kind.kind, kind.base or "", kind.program, _release_words(kind)


def _release_words(kind: InstalledKind) -> str:
    if kind.error:
        return "its file is wrong"
    if kind.path is None:
        return f"not on PATH{f'; measured: {kind.measured}' if kind.measured else ''}"
    if kind.measured is None:
        return f"at {kind.path}"
    if kind.release is None:
        return f"does not tell; measured: {kind.measured}"
    return (
        f"{kind.release}, as measured"
        if kind.release == kind.measured
        else f"{kind.release}; measured: {kind.measured}"
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
