"""The commands that touch panes: ``torch-tasks attach | screen | end-panes``."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from torch_tasks.client import Torch
from torch_tasks.errors import AgentUnavailable
from torch_tasks.models import AgentInfo, AgentSpec
from torch_tasks.settings import settings
from workers.agents.kind import AgentKind
from workers.agents.kinds import program_of
from workers.journal import Journal
from workers.session import end_session
from workers.tmux.pane import AgentPane
from workers.tmux.server import AgentServer, require_tmux


@click.command()
@click.argument("agent_id")
@click.option("--read-only", is_flag=True, help="Look, do not type.")
def attach(agent_id: str, read_only: bool) -> None:
    """Attach this terminal to an agent's pane; C-b d leaves it."""
    info = _local(agent_id)
    require_tmux()
    argv = [
        "tmux",
        "-u",
        "-S",
        info.tmux_socket,
        "attach-session",
        *(["-r"] if read_only else []),
        "-t",
        f"={agent_id}",
    ]
    os.environ.pop("TMUX", None)  # an agent's server is another one than the one we may be in
    os.execvp(argv[0], argv)  # noqa: S606 - this terminal becomes tmux's


@click.command()
@click.argument("agent_id")
@click.option("--history", type=click.IntRange(0), default=0, help="So many lines from before the screen, too.")
@click.option("--explain", is_flag=True, help="Tell instead what the agent is doing, and what says so.")
def screen(agent_id: str, history: int, explain: bool) -> None:
    """Print what an agent's pane shows."""
    info = _local(agent_id)
    pane = AgentPane.adopt(Path(info.tmux_socket), str(info.pane))
    if pane is None:
        raise AgentUnavailable(
            f"agent {agent_id} has no pane at {info.tmux_socket}; 'torch-tasks agents' tells whether it lives"
        )
    try:
        if explain:
            for source, said in _program(info).explain(pane):
                click.echo(f"{source + ':':<15}{said}")
        else:
            click.echo(pane.screen(history))
    finally:
        pane.close()


def _program(info: AgentInfo) -> AgentKind:
    spec = AgentSpec(id=info.agent_id, role=info.role, skills=info.skills, kind=info.kind)
    return program_of(spec, settings().agent_dir(info.agent_id), Path(info.workdir))


def _local(agent_id: str) -> AgentInfo:
    info = Torch().agent(agent_id)
    if info.host != socket.gethostname():
        raise AgentUnavailable(f"agent {agent_id} lives on {info.host} (node {info.node}); run this command there")
    return info


@click.command(hidden=True)
def end_panes() -> None:
    """End every pane that the state folder knows of; `down` runs this after the workers are gone."""
    for folder in settings().state_dir.glob("agents/*"):
        AgentPane(AgentServer(folder / "tmux"), "%0").end()
        journal = Journal.read(folder / "journal.json")
        if journal and journal.session:
            end_session(journal.session, journal.agent_id)
