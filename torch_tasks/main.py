"""``python -m torch_tasks.main`` is ``torch-tasks up``, with the same options."""

from __future__ import annotations

import sys

import click

from torch_tasks.cli import main

if __name__ == "__main__":
    click.echo("running 'torch-tasks up'; Ctrl-C or SIGTERM stops everything, like 'torch-tasks down'")
    main(["up", *sys.argv[1:]], prog_name="torch-tasks")
