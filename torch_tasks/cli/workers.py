"""``torch-tasks worker``. Each agent's process begins here, so it imports nothing that only other commands need."""

from __future__ import annotations

import click
from celery.bin.base import CLIContext
from celery.bin.worker import worker as celery_worker

from torch_tasks.app import app
from torch_tasks.machine.broker_logins import hand_down_login
from torch_tasks.settings import settings
from torch_tasks.started_by_name import WORKER, load
from torch_tasks.system.loading import loading

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.command(context_settings=_PASS_ON)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def worker(options: tuple[str, ...]) -> None:
    """Run one agent worker; all options are those of `celery -A torch_tasks worker`."""
    become_celery(options)


def become_celery(options: tuple[str, ...]) -> None:
    """Run Celery's worker in this process, with its options and those that Torch adds."""
    hand_down_login(settings())
    with loading():
        load(WORKER)
    # Celery's own command line would also load what is plugged into it, Flower first of all: 15 MB for each agent.
    celery_worker.params.extend(app.user_options["worker"])
    level = () if {"-l", "--loglevel"} & set(options) else ("--loglevel", "INFO")
    context = CLIContext(app=app, no_color=False, workdir=None)
    celery_worker.main([*level, *options], prog_name="torch-tasks worker", obj=context)
