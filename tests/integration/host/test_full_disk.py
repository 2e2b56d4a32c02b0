"""A full disk under an agent: what cannot be noted is not begun, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import survivors
from nodes import Node
from waiting import until

from torch_tasks import Torch


@pytest.fixture
def small_disk(node: Node) -> Iterator[Path]:
    """The node's state folder lies on a disk of its own, of 4 MiB."""
    node.state.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(node.state)]
    mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this user may not mount a tmpfs: {mounted.stderr.strip()}")
    yield node.state
    node.end_workers()
    until(lambda: not survivors(str(node.state)) and unmounted(node.state), f"{node.state} is unmounted")


def unmounted(disk: Path) -> bool:
    """The disk is gone; not yet while a program that was ended has a file there."""
    return subprocess.run(["umount", str(disk)], capture_output=True, check=False).returncode == 0


def fill(disk: Path) -> Path:
    """A file that leaves no room beside it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            for size in (65536, 4096, 1):
                while True:
                    try:
                        file.write(b"x" * size)
                    except OSError:
                        break
        finally:
            os.fsync(file.fileno())
    return filler


def test_a_task_waits_while_the_disk_is_full_and_is_done_once_when_there_is_room(
    small_disk: Path, node: Node, torch: Torch, tmp_path: Path
) -> None:
    worker = node.agent_worker("developer-1")
    assert torch.enqueue("echo before").result(timeout=20).answer == "before\n"
    filler = fill(small_disk)
    task = torch.enqueue(f"echo ran >> {tmp_path}/effect; echo after")
    until(lambda: "No space left on device" in worker.logs(), "the worker says what is missing")
    assert not task.status.ended
    filler.unlink()
    result = task.result(timeout=40)
    assert (result.succeeded, result.answer) == (True, "after\n")
    assert (tmp_path / "effect").read_text() == "ran\n"
