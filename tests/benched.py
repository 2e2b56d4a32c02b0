"""Runs benchmarks as a person does, and reads what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from nodes import MARK, SESSION

ROOT = Path(__file__).parents[1]


def benched(file: Path, module: str, *words: str, seconds: float) -> tuple[Any, str]:
    """What the benchmark, which must end well, wrote into the file, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words, "--json", str(file)],
        env={**os.environ, SESSION: MARK},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text()), done.stdout
