"""The scheduler of ``celery -A torch_tasks beat``: Celery's own, kept in the state folder, plus what always stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery.beat import PersistentScheduler

from beat.standing import STANDING


class TorchScheduler(PersistentScheduler):
    """Sends the standing entries, whatever else is scheduled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        Path(kwargs["schedule_filename"]).parent.mkdir(parents=True, exist_ok=True)
        super().__init__(*args, **kwargs)

    def install_default_entries(self, data: Any) -> None:
        """Celery's defaults and ours."""
        super().install_default_entries(data)
        self.update_from_dict(STANDING)
