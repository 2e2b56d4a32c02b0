"""``torch-tasks compat install``: the tools that Torch replaces, under their old names."""

from __future__ import annotations

from pathlib import Path

import click

from torch_tasks.compat.install import install as install_tools


@click.group()
def compat() -> None:
    """The tools that Torch replaces, under their old names."""


@compat.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that are not Torch's.")
def install(folder: Path, *, force: bool) -> None:
    """Write send-claude-message.sh, schedule_with_note.sh and tmux_utils.py into DIR; they call this installation."""
    for file in install_tools(folder, force=force):
        click.echo(f"wrote {file}")
