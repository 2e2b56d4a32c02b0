"""The commands that touch panes: ``torch-tasks attach | screen | end-panes``."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from torch_tasks.client import Torch
from torch_tasks.errors import AgentUnavailable, BrokerUnreachable
from torch_tasks.local.mail import is_hosted
from torch_tasks.settings import settings
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
    folder = _folder(agent_id)
    require_tmux()
    argv = [
        "tmux",
        "-u",
        "-S",
        str(folder / "tmux"),
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
    folder = _folder(agent_id)
    journal = Journal.read(folder / "journal.json")
    pane = AgentPane.adopt(folder / "tmux", journal.pane) if journal and journal.pane else None
    if journal is None or pane is None:
        raise AgentUnavailable(
            f"agent {agent_id} has no pane at {folder / 'tmux'}; 'torch-tasks agents' tells whether it lives"
        )
    try:
        if explain:
            if journal.spec is None:
                raise AgentUnavailable(f"the worker of {agent_id} is of an older version; start it again")
            program = program_of(journal.spec, folder, Path(journal.spec.workdir or "/"))
            for source, said in program.explain(pane):
                click.echo(f"{source + ':':<15}{said}")
        else:
            click.echo(pane.screen(history))
    finally:
        pane.close()


def _folder(agent_id: str) -> Path:
    """The agent's folder. The broker is not needed to find one that a worker of this machine hosts."""
    folder = settings().agent_dir(agent_id)
    known = (folder / "journal.json").exists()
    if known and is_hosted(folder):
        return folder
    try:
        info = Torch().agent(agent_id)
    except BrokerUnreachable:
        if known:
            return folder
        raise
    if info.host != socket.gethostname():
        raise AgentUnavailable(f"agent {agent_id} lives on {info.host} (node {info.node}); run this command there")
    return Path(info.tmux_socket).parent


@click.command(hidden=True)
def end_panes() -> None:
    """End every pane that the state folder knows of; `down` runs this after the workers are gone."""
    for folder in settings().state_dir.glob("agents/*"):
        AgentPane(AgentServer(folder / "tmux"), "%0").end()
        journal = Journal.read(folder / "journal.json")
        if journal and journal.session:
            end_session(journal.session, journal.agent_id)
