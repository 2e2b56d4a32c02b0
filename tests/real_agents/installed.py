"""The real CLIs that ``.ci/real-agents`` has installed for the tests, in a folder of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

AGENTS = Path(os.environ.get("TORCH_TEST_AGENTS", Path(__file__).parents[2] / ".venv" / "agents"))
PATH = os.pathsep.join((str(AGENTS / "bin"), os.environ["PATH"]))
"""Where a program finds them before all others."""


def needs(cli: str) -> None:
    """Skip the test if this CLI is not installed."""
    if (AGENTS / "bin" / cli).exists():
        return
    failed = AGENTS / "failed" / cli
    why = failed.read_text().strip() if failed.exists() else f"{cli} is not installed; .ci/real-agents does it"
    if os.environ.get("TORCH_TEST_REAL_AGENTS") == "required":
        pytest.fail(why)
    pytest.skip(why)
