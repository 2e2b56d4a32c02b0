"""The real CLIs that ``.ci/real-agents`` has installed for the tests, in a folder of their own."""

from __future__ import annotations

import os
from pathlib import Path

AGENTS = Path(os.environ.get("TORCH_TEST_AGENTS", Path(__file__).parents[2] / ".venv" / "agents"))
PATH = os.pathsep.join((str(AGENTS / "bin"), os.environ["PATH"]))
"""Where a program finds them before all others."""
