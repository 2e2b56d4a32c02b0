"""Takes docs/flower.png: ``python docs/flower_screenshot.py``. Needs Chromium on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,560",
    "--virtual-time-budget=6000",
]
TASKS = (
    ("developer", "normal", "git log --oneline | head -3; echo fixed the login redirect"),
    ("developer", "high", "python3 -m unittest discover -q; echo ran the unit tests"),
    ("qa", "urgent", "echo all 214 checks pass"),
    ("qa", "normal", "test -e report.xml"),
)


def main() -> None:
    """Run a small fleet, give it work, and take the picture of Flower's task page."""
    home = Path(tempfile.mkdtemp(prefix="torch-docs-"))
    os.environ |= {"TORCH_STATE_DIR": str(home), "TORCH_FLOWER_PORT": "0", "TORCH_NODE": "laptop"}
    os.environ.pop("TORCH_BROKER_URL", None)
    from torch_tasks import Torch
    from torch_tasks.machine.stack import FLOWER_USER, Stack
    from torch_tasks.model.agent import AgentSpec
    from torch_tasks.settings import settings

    stack = Stack(settings())
    try:
        stack.up([AgentSpec.parse(a) for a in ("developer-1:developer:python", "qa-1:qa")], beat=False, flower=True)
        handed = [Torch().enqueue(prompt, role=role, priority=priority) for role, priority, prompt in TASKS]
        for task in handed:
            task.result(timeout=30)
        address = stack.processes.find("flower").facts["url"].removeprefix("http://")  # type: ignore[union-attr]
        picture(
            f"http://{FLOWER_USER}:{stack.flower_password()[0]}@{address}/tasks", Path(__file__).with_name("flower.png")
        )
    finally:
        stack.down(keep_agents=False)
        shutil.rmtree(home)


def picture(url: str, to: Path) -> None:
    """What a browser shows at this address."""
    browser = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("no Chromium on PATH; install it: apt install chromium")
    with tempfile.TemporaryDirectory() as profile:
        words = [browser, *QUIET, f"--user-data-dir={profile}", f"--screenshot={to}", url]
        subprocess.run(words, check=True, capture_output=True)


if __name__ == "__main__":
    main()
