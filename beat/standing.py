"""The standing entries: what the fleet does by itself, at intervals."""

from __future__ import annotations

from typing import Any

STANDING: dict[str, dict[str, Any]] = {
    # Records end by themselves after `result_days`; their place in the index does not.
    "torch.prune": {"task": "torch.prune", "schedule": 3600.0},
}
