"""The standing entries: what the fleet does by itself, at intervals."""

from __future__ import annotations

from typing import Any

from torch_tasks.settings import settings

_SCALE = settings().scale_seconds
_STALE = max(_SCALE, 10.0)
STANDING: dict[str, dict[str, Any]] = {
    "torch.scale": {"task": "torch.scale", "schedule": _SCALE, "options": {"expires": _STALE}},
    # Records end by themselves after `result_days`; their place in the index does not.
    "torch.prune": {"task": "torch.prune", "schedule": 3600.0},
}
