"""``python -m torch_tasks.main``: this machine's stack, as ``torch-tasks up`` runs it, with the same options."""

from __future__ import annotations

import sys

import click

from torch_tasks.cli import main

if __name__ == "__main__":
    click.echo("running 'torch-tasks up'; Ctrl-C or SIGTERM ends it all, as 'torch-tasks down' does")
    main(["up", *sys.argv[1:]], prog_name="torch-tasks")
