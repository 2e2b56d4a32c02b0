"""No module reads the settings when it is imported: a broken setting is an error of the command that needs it."""

from __future__ import annotations

import os
import subprocess
import sys

IMPORT_ALL = """
import pkgutil, importlib, torch_tasks
for module in pkgutil.walk_packages(torch_tasks.__path__, "torch_tasks."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from torch_tasks.settings import settings
assert settings.cache_info().misses == 0
"""


def test_no_import_reads_the_settings() -> None:
    broken = {**os.environ, "TORCH_LEASE_SECONDS": "soon"}
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], env=broken, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
