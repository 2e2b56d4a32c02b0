"""``torch-tasks worker | node``: Celery's worker with the options that Torch adds to it."""

from __future__ import annotations

import os

import click

from torch_tasks.local.commands import runnable

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.command(context_settings=_PASS_ON)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def worker(options: tuple[str, ...]) -> None:
    """Run one agent worker; all options are those of `celery -A torch_tasks worker`."""
    _become_celery(options)


@click.command(context_settings=_PASS_ON)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def node(options: tuple[str, ...]) -> None:
    """Run this machine's node worker; all options are those of `celery -A torch_tasks worker`."""
    _become_celery(("--node", *options))


def _become_celery(options: tuple[str, ...]) -> None:
    level = () if {"-l", "--loglevel"} & set(options) else ("--loglevel", "INFO")
    argv = runnable(("celery", "-A", "torch_tasks", "worker", *level, *options))
    os.execv(argv[0], argv)  # noqa: S606 - the same process, so that signals and pids are as they seem
