"""Celery's own commands work with Torch's app in a user's folder, whatever its files are called."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import MARK, SESSION, end_tmux
from waiting import until

from torch_tasks import Torch

CELERY = (str(Path(sys.executable).with_name("celery")), "-A", "torch_tasks")
NAMES = (
    "redis.py",
    "beat.py",
    "workers/__init__.py",
    "config/__init__.py",
    "torch_tasks_plugin.py",
    "tests/__init__.py",
)

Celery = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, in which files have the names of packages; none of them may be imported."""
    home = tmp_path / "project"
    for name in NAMES:
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise SystemExit('the file of the user was imported: ' + __file__)\n")
    return home


@pytest.fixture
def celery(folder: Path) -> Celery:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*CELERY, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def worker(torch: Torch, empty: None, folder: Path) -> Iterator[Path]:
    """An agent worker that was started there by hand; its log."""
    log = folder / "log"
    argv = [*CELERY, "worker", "--loglevel", "INFO", "--id", "dev-1", "--role", "developer"]
    with log.open("wb") as output:
        env = {**os.environ, SESSION: MARK}
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or "ready." in log.read_text(), "it is ready", 60)
        yield log
    finally:
        process.terminate()
        process.wait(60)
        end_tmux(Path(os.environ["TORCH_STATE_DIR"]) / "agents" / "dev-1" / "tmux")


def test_report_tells_of_torchs_app(celery: Celery) -> None:
    done = celery("report")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch_tasks.tasks.run" in done.stdout


def test_a_worker_does_tasks_and_answers_inspect(worker: Path, celery: Celery, torch: Torch) -> None:
    assert torch.enqueue("echo here", role="developer").result(timeout=30).answer == "here\n", worker.read_text()
    done = celery("inspect", "ping")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pong" in done.stdout
