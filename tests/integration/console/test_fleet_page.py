"""The fleet's page: who is there, who is looked for, and what a person does to agents and machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from chromium import SOON_MS, Chromium, Window, logged_in
from nodes import Node
from playwright.sync_api import Locator, expect
from served import Served
from waiting import until

from torch_tasks import Torch

LONG = 4 * SOON_MS


@pytest.fixture(scope="module")
def fleet_of_two(shared_node: Node) -> Node:
    """A machine that keeps two agents and starts others."""
    shared_node.node_worker("dev-1:developer:python", "qa-1:qa")
    return shared_node


@pytest.fixture
def window(browser: Chromium, server: Served, fleet_of_two: Node) -> Iterator[Window]:
    with logged_in(browser, server) as window:
        window.page.goto("/fleet")
        for agent in ("dev-1", "qa-1"):
            expect(window.page.locator(f"#agent-{agent} .state")).to_have_text("ready", timeout=LONG)
        yield window


def agent_card(window: Window, agent: str) -> Locator:
    return window.page.locator(f"#agent-{agent}")


def test_agents_and_their_machine_are_shown_with_what_they_do(window: Window, torch: Torch) -> None:
    page, card = window.page, agent_card(window, "dev-1")
    task = torch.enqueue("sleep 600", title="count the sheep", agent="dev-1")
    expect(card.locator(".state")).to_have_text("working")
    expect(card.get_by_role("link", name="count the sheep")).to_have_attribute("href", f"/tasks/{task.id}")
    expect(card.locator(".figures")).to_contain_text("MiB", timeout=LONG)
    expect(card.locator(".figures")).to_contain_text("0 tokens today")
    expect(card.locator(".thumb")).to_have_attribute("data-pane", "dev-1")
    expect(page.locator("#node-node-a")).to_contain_text("2 of ")
    task.cancel()
    expect(card.locator(".doing")).to_contain_text("Nothing to do")
    card.get_by_role("link", name="dev-1").click()
    expect(page.get_by_role("heading", name="dev-1")).to_be_visible()


def test_what_is_looked_for_stands_in_the_address(window: Window) -> None:
    page = window.page
    page.locator("#by-role").select_option("qa")
    expect(agent_card(window, "dev-1")).to_have_count(0)
    expect(page).to_have_url("/fleet?role=qa")
    page.reload()
    expect(page.locator("#by-role")).to_have_value("qa")
    expect(agent_card(window, "dev-1")).to_have_count(0)
    page.go_back()
    expect(page.locator("#by-role")).to_have_value("")  # the page of before is there
    page.wait_for_load_state()
    expect(agent_card(window, "dev-1")).to_be_visible()
    page.locator("#by-q").fill("PYTHON")
    expect(agent_card(window, "qa-1")).to_have_count(0)
    expect(page).to_have_url("/fleet?q=PYTHON")
    page.locator("#by-q").fill("nobody")
    expect(page.get_by_text("No agent is like that")).to_be_visible()


def test_an_agent_is_paused_and_goes_on(window: Window, torch: Torch) -> None:
    card = agent_card(window, "dev-1")
    card.get_by_text("Pause", exact=True).click()
    card.get_by_label("Why").fill("lunch")
    card.get_by_role("button", name="Pause dev-1").click()
    expect(card.locator(".why")).to_contain_text("paused by operator: lunch")
    assert (paused := torch.agent("dev-1").paused)
    assert paused.reason == "lunch"
    card.get_by_role("button", name="Resume").click()
    expect(card.locator(".why")).to_have_count(0)
    until(lambda: torch.agent("dev-1").paused is None, "it is no longer paused")


def test_the_fleet_is_stopped_after_it_was_asked_and_started(window: Window) -> None:
    page = window.page
    page.get_by_text("Stop the fleet", exact=True).click()
    page.get_by_role("button", name="Yes, stop the fleet").click()
    expect(page.locator("#stopped")).to_contain_text("The fleet is stopped by operator")
    expect(agent_card(window, "qa-1").locator(".why")).to_contain_text("stopped by operator")
    page.get_by_role("button", name="Start the fleet").click()
    expect(page.locator("#stopped")).to_have_count(0)


def test_an_agent_is_spawned_and_retired(window: Window, torch: Torch) -> None:
    page = window.page
    page.get_by_text("Spawn an agent", exact=True).click()
    page.locator("#spawn-form-role").fill("writer")
    page.get_by_role("button", name="Spawn", exact=True).click()
    expect(page.locator("#spawned")).to_have_text("writer-1 is ready on node-a.", timeout=LONG)
    card = agent_card(window, "writer-1")
    expect(card).to_be_visible()
    card.get_by_text("Retire", exact=True).click()
    assert any(info.agent_id == "writer-1" for info in torch.agents()), "it asks first"
    card.get_by_role("button", name="Yes, retire writer-1").click()
    expect(card).to_have_count(0, timeout=LONG)
    assert not any(info.agent_id == "writer-1" for info in torch.agents())


def test_a_machine_is_drained_and_used_again(window: Window) -> None:
    card = window.page.locator("#node-node-a")
    card.get_by_text("Drain", exact=True).click()
    card.get_by_role("button", name="Yes, drain node-a").click()
    expect(card.locator(".state")).to_have_text("drained")
    card.get_by_role("button", name="Undrain").click()
    expect(card.locator(".state")).to_have_text("active")


def test_a_viewer_looks_and_is_offered_nothing_else(browser: Chromium, server: Served, window: Window) -> None:
    with logged_in(browser, server, server.token("watcher", "viewer")) as viewer:
        viewer.page.goto("/fleet")
        expect(agent_card(viewer, "dev-1")).to_be_visible()
        assert viewer.page.locator("form[method=post]").count() == 0


def test_the_command_prints_a_link_that_logs_in_once(browser: Chromium, server: Served, fleet_of_two: Node) -> None:
    link = json.loads(server.command("console", "/fleet?role=qa", "--json").stdout)["url"]
    contexts = [browser.new_context(), browser.new_context()]
    first, second = (context.new_page() for context in contexts)
    first.goto(link)
    assert first.url == f"{server.url}/fleet?role=qa"
    expect(first.locator("#agent-qa-1")).to_be_visible()
    second.goto(link)
    expect(second.get_by_role("alert")).to_contain_text("this link has been used")
    second.goto(f"{server.url}/fleet?state=ready")
    assert urlsplit(second.url).path == "/login"
    second.get_by_label("Token").fill(server.own_token)
    second.get_by_role("button", name="Log in with the token").click()
    assert second.url == f"{server.url}/fleet?state=ready"
    for context in contexts:
        context.close()
