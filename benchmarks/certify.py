"""How long ``torch-tasks certify`` takes for each real CLI that is installed, and how much did not hold."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator

from installed import AGENTS, PATH
from machine import TORCH_TASKS

from benchmarks.harness import Stage
from benchmarks.measures import Measure
from torch_tasks.workers.certify.homes import HOMES

GOAL_SECONDS = 120


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """One CLI after the other."""
    return [measure for cli in HOMES for measure in _cli(stage, cli)]


def _cli(stage: Stage, cli: str) -> Iterator[Measure]:
    name = f"{cli}: certified in"
    if not (AGENTS / "bin" / cli).exists():
        yield Measure(name, None, "s", note="not installed; .ci/real-agents does it")
        return
    environment = {**os.environ, "PATH": PATH, "TORCH_STATE_DIR": str(stage.folder / "certify")}
    since = time.monotonic()
    done = subprocess.run([TORCH_TASKS, "certify", cli, "--json"], env=environment, capture_output=True, check=False)
    took = time.monotonic() - since
    if not done.stdout:
        yield Measure(name, None, "s", note=done.stderr.decode().strip())
        return
    [certificate] = json.loads(done.stdout)
    broken = [result["promise"] for result in certificate["promises"] if result["outcome"] == "broken"]
    yield Measure(name, took, "s", GOAL_SECONDS, note=f"release {certificate['release']}")
    yield Measure(f"{cli}: not kept", len(broken), "promises", 0, note=", ".join(broken))
