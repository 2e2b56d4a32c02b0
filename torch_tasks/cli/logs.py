"""``torch-tasks logs``: what the processes of this machine have logged."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import click

from torch_tasks.errors import TorchError
from torch_tasks.machine.log_files import LogEntry, LogFiles
from torch_tasks.settings import settings
from torch_tasks.system.own_log import ENDING

_LOOK_SECONDS = 0.3
_PREFIX = "agent-"


@click.command()
@click.argument("name", required=False)
@click.option("-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing what is added.")
@click.option("--task", metavar="TASK", help="Only what is about this task, from all processes: its whole id.")
@click.option("--agent", metavar="AGENT", help="Only what this agent's worker logged, and what is about it.")
@click.option("--all", "every", is_flag=True, help="From all processes.")
@click.option(
    "--json", "json_wanted", is_flag=True, help="One JSON object on each line, as TORCH_LOG_FORMAT=json has it."
)
def logs(
    name: str | None, lines: int, follow: bool, task: str | None, agent: str | None, every: bool, json_wanted: bool
) -> None:
    """Print the log of a process on this machine. NAME: an agent's id, or broker, node, beat, flower, server, up.

    With --task, --agent or --all, print what concerns them from NAME's log, or from all logs in the order of their
    times. What was put aside of a log that was full is read, too. Without anything, list the logs.
    """
    folder = settings().state.logs
    there = sorted(path.stem for path in folder.glob(f"*{ENDING}"))
    stem = next((stem for stem in (name, f"{_PREFIX}{name}") if stem in there), None)
    if name is not None and stem is None:
        raise TorchError(f"there is no log of {name!r} in {folder}; there are: {', '.join(there) or 'none'}")
    if stem is None and not (task or agent or every):
        click.echo("\n".join(there) or f"no logs in {folder}")
        return
    wanted = {one: folder / f"{one}{ENDING}" for one in ([stem] if stem else there)}
    read = LogFiles(wanted, lines=None if task or agent else lines)
    form = _Print(wanted, json_wanted or settings().log_format == "json")
    with suppress(KeyboardInterrupt):
        known = list(form.lines(entry for entry in read.new() if entry.concerns(task=task, agent=agent)))
        for line in known[max(len(known) - lines, 0) :]:
            click.echo(line)
        while follow:
            sys.stdout.flush()
            time.sleep(_LOOK_SECONDS)
            for line in form.lines(entry for entry in read.new() if entry.concerns(task=task, agent=agent)):
                click.echo(line)


class _Print:
    """How entries are printed: for people each line behind its process, if there are several, or for programs."""

    def __init__(self, files: dict[str, Path], is_json: bool) -> None:
        self._is_json = is_json
        self._width = max((len(name.removeprefix(_PREFIX)) for name in files), default=0) if len(files) > 1 else 0

    def lines(self, entries: Iterable[LogEntry]) -> Iterator[str]:
        for entry in entries:
            if self._is_json:
                yield entry.for_programs()
            else:
                margin = f"{entry.name:<{self._width}}  " if self._width else ""
                yield from (f"{margin}{line}" for line in entry.for_people())
