"""What a user may set of how a machine starts its processes, and keeps its agent workers alive."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

from torch_tasks.server_settings import Finite


class WorkersSettings(BaseSettings):
    """The part of the settings that is about starting processes and starting them again."""

    hung_seconds: Finite = Field(
        60.0, gt=0, description="An agent worker that makes no progress for this long is killed and started again."
    )
    restart_backoff_seconds: Finite = Field(
        1.0,
        gt=0,
        description="The shortest time between two starts of an agent worker that dies; each further one is twice as "
        "long. One that lived for longer than that is started again at once.",
    )
    restart_backoff_limit_seconds: Finite = Field(60.0, gt=0, description="The longest such time.")
    warm_start: bool = Field(
        False,
        description="Whether this machine's processes are forked from one that has loaded what they need already: they "
        "start at once and share that memory. Where it cannot be had they are started as usual, and the log says why.",
    )
    quarantine_crashes: int = Field(
        5, gt=0, description="Crashes without a task done in between after which an agent worker is left down."
    )
    quarantine_healthy_seconds: Finite = Field(
        60.0, gt=0, description="After so long without a crash, an agent worker's crashes are forgotten."
    )
