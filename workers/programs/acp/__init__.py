"""Programs that speak the Agent Client Protocol: the kind, and Torch's client of them, which runs in the pane."""

from __future__ import annotations
