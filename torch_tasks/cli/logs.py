"""``torch-tasks logs``."""

from __future__ import annotations

import os

import click

from torch_tasks.errors import TorchError
from torch_tasks.settings import settings


@click.command()
@click.argument("name", required=False)
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="How many of the last lines."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added.")
def logs(name: str | None, lines: int, follow: bool) -> None:
    """Print the log of a process on this machine: an agent's id, or broker, node, beat, flower, up."""
    folder = settings().logs_dir
    there = sorted(path.stem for path in folder.glob("*.log"))
    if name is None:
        click.echo("\n".join(there) or f"no logs in {folder}")
        return
    stem = next((stem for stem in (name, f"agent-{name}") if stem in there), None)
    if stem is None:
        raise TorchError(f"there is no log of {name!r} in {folder}; there are: {', '.join(there) or 'none'}")
    argv = ["tail", f"--lines={lines}", *(["--follow=name", "--retry"] if follow else []), str(folder / f"{stem}.log")]
    os.execvp(argv[0], argv)  # noqa: S606 - tail does this better than we would
