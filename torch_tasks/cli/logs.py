"""``torch-tasks logs``: what the processes of this machine have logged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from torch_tasks.errors import TorchError
from torch_tasks.machine.log_files import LogEntry, LogFiles
from torch_tasks.settings import settings

_LOOK_SECONDS = 0.3
_PREFIX = "agent-"


@click.command()
@click.argument("name", required=False)
@click.option("-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing what is added.")
@click.option("--task", metavar="TASK", help="Only what is about this task, from all processes: its whole id.")
@click.option("--agent", metavar="AGENT", help="Only what this agent's worker logged, and what is about it.")
def logs(name: str | None, lines: int, follow: bool, task: str | None, agent: str | None) -> None:
    """Print the log of a process on this machine. NAME: an agent's id, or broker, node, beat, flower, server, up.

    With --task or --agent, print what concerns them from NAME's log, or from all logs in the order of their times.
    """
    folder = settings().state.logs
    there = sorted(path.stem for path in folder.glob("*.log"))
    stem = next((stem for stem in (name, f"{_PREFIX}{name}") if stem in there), None)
    if name is not None and stem is None:
        raise TorchError(f"there is no log of {name!r} in {folder}; there are: {', '.join(there) or 'none'}")
    if task or agent:
        wanted = [stem] if stem else there
        with suppress(KeyboardInterrupt):
            _print_entries({one: folder / f"{one}.log" for one in wanted}, lines, follow, task, agent)
    elif stem is None:
        click.echo("\n".join(there) or f"no logs in {folder}")
    else:
        _print_whole(folder / f"{stem}.log", lines, follow)


def _print_whole(file: Path, lines: int, follow: bool) -> None:
    following = ["--follow=name", "--retry", f"--pid={os.getpid()}"] if follow else []
    argv = ["tail", f"--lines={lines}", *following, str(file)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as tail, suppress(KeyboardInterrupt):
        assert tail.stdout
        for line in tail.stdout:
            click.echo(line.decode(errors="replace"), nl=False)
    sys.exit(tail.returncode)


def _print_entries(files: dict[str, Path], count: int, follow: bool, task: str | None, agent: str | None) -> None:
    read = LogFiles(files)
    width = max(len(name.removeprefix(_PREFIX)) for name in files) if files else 0
    known = [entry for entry in read.new() if entry.concerns(task=task, agent=agent)]
    for entry in known[max(len(known) - count, 0) :]:
        _print(entry, width)
    while follow:
        sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)
        for entry in read.new():
            if entry.concerns(task=task, agent=agent):
                _print(entry, width)


def _print(entry: LogEntry, width: int) -> None:
    for line in entry.text.split("\n"):
        click.echo(f"{entry.process.removeprefix(_PREFIX):<{width}}  {line}")
