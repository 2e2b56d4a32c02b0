"""``torch-tasks mcp``: the tools of Torch for a model's program."""

from __future__ import annotations

from pathlib import Path

import click

from torch_tasks.cli.options import Duration
from torch_tasks.system.loading import loading


@click.command()
@click.option(
    "--longest-wait", type=Duration(), help="How long a tool may take (default: 50s, or what is known of the program)."
)
@click.option("--tools", type=click.Path(path_type=Path), hidden=True, help="What the worker wrote of the tools.")
def mcp(longest_wait: float | None, tools: Path | None) -> None:
    """Serve the Model Context Protocol on standard input and output.

    A model's program starts this itself; see docs/mcp.md for how each is set up to do so.
    """
    with loading():
        from torch_tasks.mcp.stdio import serve

    serve(longest_wait, tools)
