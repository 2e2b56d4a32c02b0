"""A command that a test forks is the process that it would be if it were started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import forked
import pytest

from torch_tasks.system.warm_start import PYTHON

#: ``code`` runs what it reads.
INTERPRETER = (*PYTHON, "code", "-q")
FACTS = (
    "import gc, json, os, random, signal, sys, threading; "
    'print(json.dumps({"argv": sys.argv[1:], "path": sys.path, "cwd": os.getcwd(), "environment": dict(os.environ), '
    '"umask": os.umask(0), "shown": open("/proc/self/cmdline").read(), "files": sorted(os.listdir("/proc/self/fd")), '
    '"threads": threading.active_count(), "interrupted": str(signal.getsignal(signal.SIGINT)), '
    '"streams": [[one.name, one.encoding, one.isatty()] for one in (sys.stdin, sys.stdout, sys.stderr)], '
    '"collects": gc.isenabled()}))\n'
)


@pytest.fixture(scope="module", autouse=True)
def parent() -> None:
    """The warm parent of the tests' own environment is there."""
    forked.require_forks()
    for _ in range(2):
        forked.run([forked.TORCH_TASKS, "version"])


def facts(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the process said of itself."""
    [said] = [line for line in done.stdout.splitlines() if "{" in line]
    return dict(json.loads(said[said.index("{") :]))


def test_it_has_what_a_started_one_has(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment["TORCH_NODE"] = "here"
    started = subprocess.run(
        INTERPRETER, env=environment, cwd=tmp_path, input=FACTS, capture_output=True, text=True, check=True, timeout=60
    )
    assert facts(forked.run(INTERPRETER, environment, cwd=tmp_path, typed=FACTS)) == facts(started)


def test_it_is_forked_and_no_two_have_the_same_random_numbers() -> None:
    loaded = "import random, sys; print({'loaded': 'torch_tasks.cli.tasks' in sys.modules}, random.random())\n"
    said = {forked.run(INTERPRETER, typed=loaded).stdout for _ in range(2)}
    assert len(said) == 2
    assert all("'loaded': True" in one for one in said)


def test_how_it_ended_is_known() -> None:
    kill = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    ends = {"import sys; sys.exit(7)\n": 7, "import os; os.abort()\n": -signal.SIGABRT, kill: -signal.SIGKILL}
    assert {typed: forked.run(INTERPRETER, typed=typed).returncode for typed in ends} == ends


def test_one_that_lasts_longer_than_it_may_is_ended() -> None:
    with pytest.raises(TimeoutError, match="begun"):
        forked.run(INTERPRETER, typed="import time; print('begun', flush=True); time.sleep(600)\n", seconds=3)


def test_what_it_started_and_what_still_writes_is_waited_for() -> None:
    later = "import subprocess; subprocess.Popen(['sh', '-c', 'sleep 0.3; echo later'])\n"
    assert forked.run(INTERPRETER, typed=later).stdout.endswith("later\n")
