"""What ``celery -A torch_tasks beat`` runs."""

from __future__ import annotations

from typing import Any

import click
from celery.apps.beat import Beat
from celery.beat import Service
from celery.platforms import signals

from torch_tasks.beat.scheduler import TorchScheduler
from torch_tasks.errors import TorchError
from torch_tasks.fleet import fleet
from torch_tasks.machine.fleet_keys import require_own_fleet
from torch_tasks.settings import settings


class BeatService(Service):
    """Turns its scheduler until a signal asks it to end; it ends between two turns, also if it was asked before."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_asked_to_end = False
        self._turning: TorchScheduler | None = None

    def get_scheduler(self, lazy: bool = False, **options: Any) -> TorchScheduler:
        scheduler: TorchScheduler = super().get_scheduler(lazy=lazy, **options)
        if not lazy:
            self._turning = scheduler
            if self._is_asked_to_end:
                scheduler.end()
        return scheduler

    def end(self) -> None:
        """For a signal's handler: takes no lock, for the thread that it interrupts may hold any."""
        self._is_asked_to_end = True
        if self._turning:
            self._turning.end()


class BeatProgram(Beat):
    """Celery's beat, for its own fleet alone; without its banner where each line of the log is an event."""

    Service = BeatService

    def __init__(self, *args: Any, quiet: bool = False, **options: Any) -> None:
        super().__init__(*args, quiet=quiet or settings().log_format == "json", **options)

    def run(self) -> None:
        try:
            require_own_fleet(fleet())
        except TorchError as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(error.exit_code) from None
        super().run()

    def install_sync_handler(self, service: BeatService) -> None:
        """Have a signal ask for the end.

        Celery's own handler closes the scheduler inside whatever it interrupts, and then raises: a beat that was still
        starting began a second scheduler there, and either failed or missed that it was to end.
        """

        def ask(*_: object) -> None:
            service.end()

        signals.update(SIGTERM=ask, SIGINT=ask)
