"""What ``celery -A torch_tasks beat`` runs."""

from __future__ import annotations

from typing import Any

from celery.apps.beat import Beat

from torch_tasks.settings import settings


class BeatProgram(Beat):
    """Celery's beat, without its banner where each line of the log is an event."""

    def __init__(self, *args: Any, quiet: bool = False, **options: Any) -> None:
        super().__init__(*args, quiet=quiet or settings().log_format == "json", **options)
