"""How the console behaves: read aloud, by keys, on a phone, dark and light, while data arrives, without its server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import DESK, PHONE, Chromium, Window, logged_in
from nodes import Node
from playwright.sync_api import expect
from served import Served

from torch_tasks import Torch
from torch_tasks.server.console.pages import PAGES

PLAIN = [page.path for page in PAGES if "{" not in page.path]
"""The pages that are about nothing in particular."""
OF_ONE = [
    page.path.format(task_id="hello", agent_id="dev-0", agent="dev-0", id="morning", text="answer")
    for page in PAGES
    if "{" in page.path
]
"""Those that are about one task, one agent, one check-in."""
TRIED = [*PLAIN, *OF_ONE, "/me", "/login"]
LOOKS = [(size, colours) for size in ("phone", "desk") for colours in ("dark", "light")]
_SHIFTS = """
    window.shifted = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
    }).observe({ type: "layout-shift", buffered: true });
"""
_KEPT = """async () => {
      const found = [];
      for (const name of await caches.keys()) found.push(...(await (await caches.open(name)).keys()));
      return found.map((one) => new URL(one.url).pathname);
    }"""


@pytest.fixture(scope="module", autouse=True)
def agents(server: Served, shared_node: Node, torch: Torch) -> Iterator[None]:
    """Some agents, a task that succeeded, and one that nobody can do."""
    for number in range(3):
        shared_node.agent_worker(f"dev-{number}")
    torch.enqueue("echo hello", id="hello", agent="dev-0").result(timeout=60)
    torch.enqueue("true", id="nobody-can", skills=["cobol"])
    torch.checkins.add("every day at 8:00", "Report what you did yesterday.", "dev-0", id="morning")
    yield
    shared_node.end_workers()


@pytest.fixture(scope="module", params=LOOKS, ids=lambda look: "-".join(look))
def window(request: pytest.FixtureRequest, browser: Chromium, server: Served) -> Iterator[Window]:
    size, colours = request.param
    with logged_in(browser, server, viewport=PHONE if size == "phone" else DESK, color_scheme=colours) as window:
        yield window


@pytest.mark.parametrize("path", TRIED)
def test_nothing_keeps_a_person_from_reading_it(window: Window, path: str) -> None:
    assert window.page.goto(path).ok  # type: ignore[union-attr]
    found = Axe().run(window.page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not grave, "\n".join(f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in grave)


@pytest.mark.parametrize("path", TRIED)
def test_nothing_is_wider_than_the_screen(window: Window, path: str) -> None:
    window.page.goto(path)
    width, content = window.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert content <= width


def test_the_keys_lead_everywhere(browser: Chromium, server: Served) -> None:
    with logged_in(browser, server) as window:
        page = window.page
        page.goto("/")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Fleet")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.keyboard.press("g")
        page.keyboard.press("f")
        page.wait_for_url("**/fleet")
        page.keyboard.press("j")
        first = page.evaluate("document.activeElement.id")
        page.keyboard.press("j")
        assert first
        assert page.evaluate("document.activeElement.id") not in ("", first)
        page.keyboard.press("k")
        assert page.evaluate("document.activeElement.id") == first


def test_chosen_colours_stay(browser: Chromium, server: Served) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with logged_in(browser, server, color_scheme="light") as window:
        page = window.page
        page.goto("/")
        light = page.evaluate(ground)
        page.get_by_role("button", name="Change the colours").click()
        assert page.evaluate(ground) != light
        page.reload()
        assert page.evaluate(ground) != light


def test_nothing_jumps_while_data_arrives(browser: Chromium, server: Served, torch: Torch) -> None:
    with logged_in(browser, server) as window:
        page = window.page
        page.add_init_script(_SHIFTS)
        page.goto("/fleet")
        expect(page.locator("#agent-dev-1")).to_be_visible()
        with page.expect_response(lambda reply: reply.request.headers.get("x-torch-console") == "script"):
            torch.enqueue("echo there", agent="dev-1").result(timeout=60)
        page.wait_for_function("() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(true))))")
        assert page.evaluate("window.shifted") < 0.02


def test_back_and_reload_keep_the_place(browser: Chromium, server: Served) -> None:
    with logged_in(browser, server, viewport={"width": 390, "height": 300}) as window:
        page = window.page
        page.goto("/fleet")
        page.evaluate("scrollTo(0, 120)")
        place = page.evaluate("scrollY")
        assert place > 50
        page.reload()
        page.wait_for_function(f"() => scrollY === {place}")
        page.evaluate("document.querySelector('header nav a').click()")  # without scrolling to it
        page.wait_for_url("**/")
        page.go_back()
        page.wait_for_function(f"() => scrollY === {place}")


def test_it_can_be_installed_and_says_when_its_server_is_away(browser: Chromium, server: Served) -> None:
    with logged_in(browser, server, viewport=PHONE) as window:
        page = window.page
        page.goto("/")
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.wait_for_function("() => navigator.serviceWorker.controller")
        talk = page.context.new_cdp_session(page)
        assert talk.send("Page.getAppManifest")["errors"] == []
        lacks = {one["errorId"] for one in talk.send("Page.getInstallabilityErrors")["installabilityErrors"]}
        assert lacks <= {"in-incognito"}, lacks
        kept = page.evaluate(_KEPT)
        assert kept
        assert all(path.startswith("/static/") for path in kept), "no page and no data is kept"
        page.context.set_offline(True)
        page.goto("/fleet")
        expect(page.get_by_role("heading", name="The server is away")).to_be_visible()
        page.context.set_offline(False)
        page.goto("/fleet")
        expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
        window.errors.clear()  # what a browser without a network says of itself
