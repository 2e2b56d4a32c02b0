"""No module reads the settings when it is imported: a broken setting is an error of the command that needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_threads_that_begin_together_read_the_same_configuration(tmp_path: Path) -> None:
    script = (
        "import threading\n"
        "from torch_tasks.app import app\n"
        "begin, read = threading.Barrier(8), []\n"
        "def look():\n"
        "    begin.wait()\n"
        "    read.append(app.conf.broker_url)\n"
        "threads = [threading.Thread(target=look) for _ in range(8)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
        "assert len(read) == 8\n"
        "assert all('127.0.0.1:1/' in str(url) for url in read), read\n"
    )
    env = {**os.environ, "TORCH_STATE_DIR": str(tmp_path), "TORCH_BROKER_URL": "redis://127.0.0.1:1/0"}
    for _ in range(3):
        subprocess.run([sys.executable, "-c", script], env=env, check=True)
