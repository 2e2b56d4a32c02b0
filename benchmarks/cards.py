"""What 100 live cards cost: a real browser before the fleet's page, the server, and the broker, however many look."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.harness import Stage, cpu_seconds
from benchmarks.measures import Measure
from benchmarks.registry import entered
from benchmarks.server import served
from torch_tasks import keys
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.model.drawn_screen import DrawnScreen, Run

AGENTS = 100
GOAL_PERCENT = 20.0
_SECONDS = 20.0
_ROUNDS = 10
_LOOK_SECONDS = 0.5
"""How often a worker publishes a terminal that changes."""
_CHANGES_PER_SECOND = 4
"""So many agents begin or end something in a second."""
_DESK = {"width": 1400, "height": 900}
_WALL = {"width": 2560, "height": 9000}
"""Tall enough for all cards: what is out of view costs nothing."""
_VIEWERS = (1, 4)


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Terminals are published as workers do, a line more each half second; browsers and server are real."""
    program = shutil.which("chromium")
    if program is None:
        return [Measure("100 live cards", None, "", note="there is no Chromium here")]
    with ExitStack() as stack:
        stack.enter_context(entered(AGENTS))
        server, url, token = stack.enter_context(served(stage))
        stack.enter_context(_terminals())
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        stack.callback(browser.close)
        seconds = 5.0 if quick else _SECONDS
        found = [*_cost(browser, server, url, token, seconds)]
        with _changes():
            found += _cost(browser, server, url, token, seconds, ", and 4 agents change each second")
            return [*found, *_viewed(browser, server, stage.broker, url, token, seconds)]


def _cost(
    browser: Browser, server: psutil.Process, url: str, token: str, seconds: float, while_: str = ""
) -> Iterator[Measure]:
    """The CPU of all of the browser's processes, and of the server, as shares of one core."""
    for what, size, cards in (("a desk's window", _DESK, 1), ("a wall with all cards in view", _WALL, AGENTS)):
        with _page(browser, url, token, size) as page:
            page.wait_for_function(f"() => document.querySelectorAll('.thumb .row').length > {cards * 5}")
            page.wait_for_timeout(2000)
            before, served_before, begun = _browser_seconds(browser), cpu_seconds([server]), time.monotonic()
            page.wait_for_timeout(seconds * 1000)
            took = time.monotonic() - begun
            used = {kind: after - before.get(kind, 0.0) for kind, after in _browser_seconds(browser).items()}
            spent = cpu_seconds([server]) - served_before
        parts = ", ".join(
            f"{kind} {one / took * 100:.1f} %" for kind, one in sorted(used.items()) if one / took > 0.001
        )
        share = sum(used.values()) / took * 100
        yield Measure(f"{what}{while_}: the browser", share, "% of a core", goal=GOAL_PERCENT, note=parts)
        yield Measure(f"{what}{while_}: the server", spent / took * 100, "% of a core")


def _viewed(
    browser: Browser, server: psutil.Process, broker: psutil.Process, url: str, token: str, seconds: float
) -> Iterator[Measure]:
    """What the broker is asked for by the server while so many windows look at all cards."""
    for viewers in _VIEWERS:
        with ExitStack() as stack:
            pages = [stack.enter_context(_page(browser, url, token, _WALL)) for _ in range(viewers)]
            pages[-1].wait_for_timeout(5000)
            begun, asked, spent = time.monotonic(), _commands(), cpu_seconds([broker])
            pages[-1].wait_for_timeout(seconds * 1000)
            took = time.monotonic() - begun
            yield Measure(f"the broker's commands, {viewers} look", (_commands() - asked) / took, "in a second")
            yield Measure(f"the broker, {viewers} look", (cpu_seconds([broker]) - spent) / took * 100, "% of a core")


@contextmanager
def _page(browser: Browser, url: str, token: str, size: Any) -> Iterator[Page]:
    context = browser.new_context(base_url=url, viewport=size)
    context.request.post("/login", form={"token": token}, headers={"Origin": url}, max_redirects=0)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto("/fleet", timeout=120_000)
    try:
        yield page
    finally:
        context.close()


def _browser_seconds(browser: Browser) -> dict[str, float]:
    """The CPU time of the browser's processes, by their kinds, as it says itself."""
    talk = browser.new_browser_cdp_session()
    found: dict[str, float] = {}
    for one in talk.send("SystemInfo.getProcessInfo")["processInfo"]:
        found[one["type"]] = found.get(one["type"], 0.0) + one["cpuTime"]
    talk.detach()
    return found


def _commands() -> int:
    return int(fleet().client.info("stats")["total_commands_processed"])


@contextmanager
def _terminals() -> Iterator[None]:
    """A hundred terminals in which a program writes a line each half second."""
    made = [[_screen(number, round_) for number in range(AGENTS)] for round_ in range(_ROUNDS)]

    def publish(round_: int) -> None:
        with fleet().client.pipeline(transaction=False) as pipe:
            for number, screen in enumerate(made[round_ % _ROUNDS]):
                pipe.publish(keys.drawn_screen(f"bench-{number}"), screen)
            pipe.execute()

    with _each(_LOOK_SECONDS, publish):
        yield


def _screen(number: int, round_: int) -> str:
    lines = range(round_, round_ + 24)
    rows = tuple((Run(f"[{n}] "), Run(f"agent {number} ", "f2"), Run(f"builds part {n * 7919} of it")) for n in lines)
    return DrawnScreen(columns=80, rows=rows, cursor=(0, 23)).model_dump_json()


@contextmanager
def _changes() -> Iterator[None]:
    """Agents that begin and end something."""
    known = fleet().registry.agents()

    def change(round_: int) -> None:
        for step in range(_CHANGES_PER_SECOND):
            at = (round_ * _CHANGES_PER_SECOND + step) % len(known)
            state = AgentState.WORKING if known[at].state is AgentState.READY else AgentState.READY
            known[at] = known[at].model_copy(update={"state": state})
            fleet().registry.heartbeat(known[at])

    with _each(1.0, change):
        yield


@contextmanager
def _each(seconds: float, act: Any) -> Iterator[None]:
    ending = threading.Event()

    def run() -> None:
        round_ = 0
        while not ending.wait(seconds):
            act(round_)
            round_ += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
