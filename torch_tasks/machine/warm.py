"""This machine's warm parent, from which its lasting processes are forked."""

from __future__ import annotations

from torch_tasks.machine.commands import WARM_PARENT
from torch_tasks.settings import Settings
from torch_tasks.system.warm_start import NAME, WarmParent


def warm_parent(settings: Settings) -> WarmParent | None:
    """It, whether it runs yet or not; None if the settings want none."""
    state = settings.state
    return WarmParent(state.run, WARM_PARENT, state.logs / f"{NAME}.log") if settings.warm_start else None
