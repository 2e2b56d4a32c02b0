"""The commands of a node: ``torch-tasks attach | screen | kinds``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

import click
import psutil
from pydantic import BaseModel

from torch_tasks.cli.names import AGENT
from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json, as_table, clear_screen
from torch_tasks.cli.tables import Column, wrapped
from torch_tasks.client import Torch
from torch_tasks.config_files import known_kinds
from torch_tasks.errors import AgentUnavailable, BrokerUnreachable, InvalidSettings, NodeNotFound
from torch_tasks.link import link, perform
from torch_tasks.link.direct import DirectLink
from torch_tasks.machine.agent_folder import is_hosted
from torch_tasks.machine.certificates import Certificates
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.asker import Asker
from torch_tasks.model.certificate import ReleaseState
from torch_tasks.model.drawn_screen import text_of
from torch_tasks.monitoring.screens import LOOK_SECONDS
from torch_tasks.operations import agents
from torch_tasks.security.audit import note_event
from torch_tasks.settings import settings
from torch_tasks.state_folder import JOURNAL, TMUX
from torch_tasks.workers.folders import AgentJournal
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.installed import installed_release
from torch_tasks.workers.programs.kind import program_of
from torch_tasks.workers.programs.releases import certified_releases
from torch_tasks.workers.tmux.pane import AgentPane
from torch_tasks.workers.tmux.server import AgentServer, require_tmux

#: How long a tmux server may outlive the client that was attached to it.
_ENDING_SECONDS = 2.0
_KIND_COLUMNS = (Column("KIND"), Column("BASE", spare=1), wrapped("PROGRAM", least=10), wrapped("RELEASE"))


@click.command()
@click.argument("agent_id", metavar="AGENT", type=AGENT)
@click.option("--read-only", is_flag=True, help="Watch only; what you type is not sent.")
def attach(agent_id: str, read_only: bool) -> None:
    """Attach this terminal to an agent's pane; C-b d leaves it.

    For an agent on another machine, it names the command to run. When the agent's program is restarted, the terminal
    follows it into its new pane.
    """
    place = _place(agent_id)
    if isinstance(place, AgentInfo):
        raise _elsewhere(place)
    require_tmux()
    flags = ["-r"] if read_only else []
    argv = ["tmux", "-u", "-S", str(place / TMUX), "attach-session", *flags, "-t", f"={agent_id}"]
    os.environ.pop("TMUX", None)  # an agent's server is not the one this command may run in
    server = AgentServer(place / TMUX)
    how = "to watch" if read_only else "to type"
    note_event("agent.attached", f"agent {agent_id}", who=Asker.now(), why=how)
    while True:
        before = server.listener()
        code = subprocess.run(argv, check=False).returncode
        if code == 0 or before is None or not _has_ended(server, before):
            sys.exit(code)
        _await_pane(agent_id, server)


def _has_ended(server: AgentServer, process: psutil.Process) -> bool:
    """Whether the server ends: its clients are detached a moment before."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while server.listener() == process:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _await_pane(agent_id: str, server: AgentServer) -> None:
    """Wait for the pane in which the agent's program is started again."""
    deadline = time.monotonic() + settings().agent_start_seconds
    with suppress(KeyboardInterrupt):
        while is_hosted(server.socket.parent) and time.monotonic() < deadline:
            if server.listener() is not None:
                return
            time.sleep(LOOK_SECONDS)
    raise AgentUnavailable(f"the pane of {agent_id} has ended; 'torch-tasks agents' shows the agent's state")


@click.command()
@click.argument("agent_id", metavar="AGENT", type=AGENT)
@click.option("--history", type=click.IntRange(0), default=0, help="Also print this many lines from above the screen.")
@click.option("--explain", is_flag=True, help="Print what the agent is doing instead, and the evidence for it.")
@click.option("-f", "--follow", is_flag=True, help="Print it again whenever it changes, until Ctrl-C.")
def screen(agent_id: str, history: int, explain: bool, follow: bool) -> None:
    """Print what an agent's pane shows, also when it is on another machine."""
    place = _place(agent_id) if isinstance(link(), DirectLink) else Torch().agent(agent_id)
    if isinstance(place, AgentInfo):
        if explain:
            _print_evidence(
                (one.source, one.evidence) for one in perform(agents.explain, agents.OfAgent(agent_id=place.agent_id))
            )
        else:
            _print(_far_screens(place.agent_id, history), follow)
        return
    journal = AgentJournal.read(place / JOURNAL)
    pane = AgentPane.adopt(place / TMUX, journal.pane) if journal and journal.pane else None
    if journal is None or pane is None:
        raise AgentUnavailable(
            f"agent {agent_id} has no pane at {place / TMUX}; 'torch-tasks agents' shows the agent's state"
        )
    with closing(pane):
        if not explain:
            _print(_screens(pane, history), follow)
            return
        if journal.spec is None:
            raise AgentUnavailable(f"the worker of {agent_id} is of an older version; start it again")
        program = program_of(journal.spec, place, Path(journal.folder or "/"))
        _print_evidence(program.explain(pane))


def _print_evidence(found: Iterable[tuple[str, str]]) -> None:
    for source, evidence in found:
        click.echo(f"{source + ':':<15}{evidence}")


def _screens(pane: AgentPane, history: int) -> Generator[str, None, None]:
    """The pane's screen, now and after each change."""
    last: str | None = None
    while True:
        if last != (now := pane.screen(history)):
            last = now
            yield now
        time.sleep(LOOK_SECONDS)


def _far_screens(agent_id: str, history: int) -> Generator[str, None, None]:
    """The screen of an agent of another machine, now and after each change."""
    mark = ""
    while True:
        if screen := perform(agents.screen, agents.Look(agent_id=agent_id, mark=mark)):
            mark = screen.mark
            above = _above(agent_id, history) if history else ""
            yield above + screen.text


def _above(agent_id: str, lines: int) -> str:
    rows = perform(agents.scrollback, agents.LookAbove.build(agent_id=agent_id, lines=lines)).rows
    return "".join(f"{text_of(row).rstrip()}\n" for row in rows)


def _print(screens: Generator[str, None, None], follow: bool) -> None:
    """Print the first screen, or all: on a terminal each over the one before, else each below a line with the time."""
    is_terminal = sys.stdout.isatty()
    with closing(screens), suppress(KeyboardInterrupt):
        for screen in screens:
            if follow and is_terminal:
                clear_screen()
            elif follow:
                click.echo(f"── {datetime.now():%H:%M:%S} ──")
            click.echo(screen)
            if not follow:
                return


def _place(agent_id: str) -> Path | AgentInfo:
    """The agent's folder if it lives on this machine, which needs no broker; else its entry in the registry."""
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


def _elsewhere(info: AgentInfo) -> AgentUnavailable:
    address = info.host
    with suppress(NodeNotFound):
        address = Torch().node(info.node).address or address
    return AgentUnavailable(
        f"agent {info.agent_id} lives on node {info.node} ({info.host}), not here; run: "
        f"ssh -t {address} torch-tasks attach {info.agent_id}"
    )


class InstalledKind(BaseModel):
    """One kind of agent, as it is on this machine."""

    kind: str
    base: str | None = None
    """The kind whose file this one's file changes."""
    program: str = ""
    path: str | None = None
    """Where its program is; none if it is not on PATH."""
    release: str | None = None
    release_state: ReleaseState | None = None
    """What is known of this release; none if there is no program, or nothing that a certificate could be about."""
    why: str = ""
    """Who says so, or what did not hold."""
    certified: tuple[str, ...] = ()
    """The releases with which Torch's own tests passed, the newest first."""
    error: str | None = None
    """What is wrong with its file."""


@click.command()
@JSON
def kinds(json_wanted: bool) -> None:
    """List the kinds of agents, and whether the releases of their programs here are certified.

    Exit code 1 if the file of one is wrong.
    """
    with ThreadPoolExecutor() as at_once:
        found = list(at_once.map(_installed, known_kinds()))
    if json_wanted:
        as_json(found)
    else:
        rows = [(kind.kind, kind.base or "", kind.program, _release_words(kind)) for kind in found]
        as_table(_KIND_COLUMNS, rows)
        for kind in found:
            if kind.error:
                click.echo(f"Error: {kind.error}", err=True)
    sys.exit(1 if any(kind.error for kind in found) else 0)


def _installed(name: str) -> InstalledKind:
    try:
        config = kind_config(name)
    except InvalidSettings as error:
        return InstalledKind(kind=name, error=str(error))
    runs = installed_release(name, Certificates(settings().state))
    return InstalledKind(
        kind=name,
        base=config.base,
        program=config.command[0],
        path=config.path,
        release=runs.release,
        release_state=runs.release_state,
        why=runs.why,
        certified=tuple(one.release for one in certified_releases(name)),
    )


def _release_words(kind: InstalledKind) -> str:
    if kind.error:
        return "its file is wrong"
    if kind.path is None:
        return "not on PATH" + (f"; certified: {kind.certified[0]}" if kind.certified else "")
    if kind.release_state is None:
        return f"at {kind.path}"
    return f"{kind.release or 'release unknown'}, {kind.release_state}: {kind.why}"
