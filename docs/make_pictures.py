"""Takes the pictures of docs/console.md: ``python docs/make_pictures.py`` (with the extra ``dev``, Chromium and tmux).

A real fleet works for them: shells, and a fake coding agent that asks (``tests/fakes/cli``).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).resolve().parent
PICTURES = HERE / "pictures"
PATIENCE_SECONDS = 180  # a fleet takes its time to start on a busy machine
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
TASKS = (
    ("build-the-shop", "echo compiled 214 files; sleep 1; echo built"),
    ("unit-tests", "echo 214 passed in 12.3 s"),
    ("lint", "echo src/shop.py:12: unused import >&2; exit 3"),
    ("nightly", "for i in $(seq 400); do echo page $i of 400; [ $i -lt 120 ] || sleep 1; done"),
)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with fleet() as (address, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for path, name in pages():
            take(browser, address, token, path, f"{name}.png", viewport=DESK, color_scheme="light")
        take(browser, address, token, "/", "phone.png", viewport=PHONE, color_scheme="dark")
        browser.close()


def pages() -> Iterator[tuple[str, str]]:
    """The address and the name of each page's picture."""
    from torch_tasks.server.console.pages import PAGES

    about = {"task_id": "build-the-shop", "agent_id": "sh-1", "agent": "sh-1", "id": "morning", "text": "answer"}
    asked = {"audit": "?who=sh-1"}  # other entries name the policy's file, where this checkout has it
    for page in PAGES:
        yield page.path.format(**about) + asked.get(page.name, ""), page.name


def take(browser: Any, address: str, token: str, path: str, name: str, **how: Any) -> None:
    context = browser.new_context(base_url=address, **how)
    context.request.post("/login", form={"token": token}, headers={"Origin": address}, max_redirects=0)
    page: Page = context.new_page()
    page.goto(path)
    page.wait_for_timeout(1500)  # live panes draw themselves
    page.screenshot(path=PICTURES / name)
    context.close()


@contextmanager
def fleet() -> Iterator[tuple[str, str]]:
    """A fleet that has done something and waits for something: its server's address and the owner's token."""
    home = Path(tempfile.mkdtemp(prefix="tp-"))
    config = home / "config"
    (config / "agents").mkdir(parents=True)
    (home / "shop").mkdir()
    os.chdir(home / "shop")  # where the agents work
    os.environ |= {
        "TORCH_STATE_DIR": str(home / "s"), "TORCH_CONFIG_DIR": str(config), "TORCH_NODE": "laptop",
        "TORCH_SERVER_PORT": "0", "TORCH_HEARTBEAT_SECONDS": "1",
    }  # fmt: skip
    os.environ.pop("TORCH_BROKER_URL", None)
    sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "integration")]
    from fake_kind import kind_toml
    from fakes.cli.client import FakeCli
    from fakes.cli.scenario import Scenario, Turn
    from fakes.cli.steps import Permission, Say

    from torch_tasks import Torch
    from torch_tasks.machine.own_server import server_of
    from torch_tasks.machine.stack import Stack
    from torch_tasks.model.agent import AgentSpec
    from torch_tasks.settings import settings

    asks = Turn((Permission(command="rm -rf build"), Say("Removed the old build.")), match="Clean")
    cli = FakeCli(home / "cli", Scenario(turns=(asks,)), name="coder")
    (config / "agents" / "coder.toml").write_text(kind_toml([*cli.argv, "--settings", "{hooks}"], hooks=True))
    stack = Stack(settings())
    try:
        declared = ("sh-1:builder:bash", "sh-2:builder:bash", "qa-1:qa:bash", "dev-1:developer:python:coder")
        stack.up([AgentSpec.parse(one) for one in declared], beat=True, flower=False)
        torch = Torch()
        for name, prompt in TASKS:
            ends, title = name != "nightly", name.replace("-", " ").capitalize()
            agent = None if ends else "sh-1"  # whose page is taken
            task = torch.enqueue(prompt, id=name, title=title, role="builder" if ends else None, agent=agent)
            if ends:
                task.result(timeout=PATIENCE_SECONDS)
        torch.enqueue("Clean up the build folder.", id="clean", title="Clean up", agent="dev-1")
        torch.enqueue("Train the model", id="train", title="Train the model", skills=["gpu"])
        until = time.monotonic() + PATIENCE_SECONDS
        while str(torch.task("clean").status) != "waiting" and time.monotonic() < until:
            time.sleep(0.2)
        torch.checkins.add("every day at 8:00", "Report what you did yesterday.", "dev-1", id="morning")
        server = server_of(settings().state)
        assert server
        yield server.url, (home / "s" / "server.token").read_text().strip()
    finally:
        stack.down(keep_agents=False)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
