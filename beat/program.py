"""What ``celery -A torch_tasks beat`` runs."""

from __future__ import annotations

from typing import Any

import click
from celery.apps.beat import Beat

from torch_tasks.errors import TorchError
from torch_tasks.fleet import fleet
from torch_tasks.machine.fleet_keys import require_own_fleet
from torch_tasks.settings import settings


class BeatProgram(Beat):
    """Celery's beat, for its own fleet alone; without its banner where each line of the log is an event."""

    def __init__(self, *args: Any, quiet: bool = False, **options: Any) -> None:
        super().__init__(*args, quiet=quiet or settings().log_format == "json", **options)

    def run(self) -> None:
        try:
            require_own_fleet(fleet())
        except TorchError as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(error.exit_code) from None
        super().run()
