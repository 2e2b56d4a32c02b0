"""The agenda, the accounts, the report and the audit in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import PHONE, Chromium, Window, logged_in
from nodes import Broker, Node
from playwright.sync_api import expect
from served import Served, served

from torch_tasks import Torch
from torch_tasks.facades.checkins import Checkins
from torch_tasks.fleet import fleet
from torch_tasks.model.budget import Charge

HOSTILE = "Look </script><script>alert(1)</script>\x1b[31m\u202etxt"


@pytest.fixture(scope="module")
def budgeted(broker: Broker, torch: Torch) -> Iterator[Served]:
    with served(broker, TORCH_BUDGETS='{"claude": {"calls_per_day": 10}}') as server:
        yield server


@pytest.fixture(scope="module")
def window(browser: Chromium, budgeted: Served, shared_node: Node) -> Iterator[Window]:
    shared_node.agent_worker("dev-1", "developer")
    with logged_in(browser, budgeted) as window:
        yield window


def test_a_check_in_is_added_paused_changed_and_removed(window: Window) -> None:
    page = window.page
    page.goto("/time")
    expect(page.get_by_text("Nothing is scheduled")).to_be_visible()
    expect(page.get_by_text("no beat runs")).to_be_visible()
    page.get_by_text("New check-in").click()
    page.get_by_label("Note, as the agent gets it").fill("How far are you?")
    page.get_by_label("When", exact=True).fill("never o'clock")
    page.get_by_role("button", name="Add it").click()
    expect(page.locator("#said .bad")).to_contain_text("never o'clock")
    assert page.get_by_label("Note, as the agent gets it").input_value() == "How far are you?"  # as it was typed
    window.forgive("400")
    page.get_by_label("When", exact=True).fill("every 30m")
    page.get_by_label("or all of the role").select_option("developer")
    page.get_by_role("button", name="Add it").click()
    card = page.locator("article", has_text="How far are you?")
    expect(card).to_contain_text("every 30 min")
    (kept,) = Checkins().list()
    asked = kept.checkin
    assert (asked.note, asked.target.role, asked.sender) == ("How far are you?", "developer", "operator")
    card.get_by_role("button", name="Pause").click()
    expect(card.locator(".state").first).to_have_text("paused")
    card.get_by_role("link").first.click()
    page.get_by_text("Change it").first.click()
    page.get_by_label("When", exact=True).fill("every 2 hours")
    page.get_by_role("button", name="Change it").click()
    expect(page.locator(".facts")).to_contain_text("every 2 h")
    page.get_by_text("Remove", exact=True).click()
    page.get_by_role("button", name="Yes, remove").click()
    page.wait_for_url("**/time")  # its own page went with it
    expect(page.get_by_text("Nothing is scheduled")).to_be_visible()
    assert Checkins().list() == []


def test_a_hostile_note_is_text_on_a_phone_too(browser: Chromium, budgeted: Served) -> None:
    Checkins().add("tomorrow 9:00", HOSTILE + "x" * 20_000, role="developer", id="hostile")
    with logged_in(browser, budgeted, viewport=PHONE) as window:
        for path in ("/time", "/time/hostile"):
            window.page.goto(path)
            assert "Look </script><script>alert(1)" in window.page.locator("main").inner_text()
            assert window.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert "</script>␛[31m⟨U+202E⟩txt" in window.page.locator("main").inner_text()


def test_an_account_shows_what_is_left_and_that_it_rests(window: Window) -> None:
    fleet().budgets.spend("claude", {}, Charge(calls=10, tokens=1234))
    fleet().account("claude").limited(600)
    window.page.goto("/accounts")
    card = window.page.locator("#account-claude")
    expect(card).to_contain_text("10 of 10")
    expect(card).to_contain_text("used up")
    expect(card).to_contain_text("it rests until")
    expect(card).to_contain_text("1,234")


def test_the_report_is_there_for_other_days_too(window: Window) -> None:
    window.page.goto("/report")
    expect(window.page.get_by_role("heading", name="The fleet from")).to_be_visible()
    window.page.get_by_role("link", name="30 days").click()
    expect(window.page.get_by_text("Nothing was recorded in this time")).to_be_visible()
    assert window.page.url.endswith("?days=30")


def test_the_audit_is_searched_and_verified_by_who_may(browser: Chromium, budgeted: Served, window: Window) -> None:
    page = window.page
    page.goto("/audit?what=checkin")
    expect(page.locator("tbody tr", has_text="checkin.remove")).to_contain_text("person:operator")
    assert "person.login" not in page.locator("main").inner_text()
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_role("status").filter(has_text="Intact")).to_be_visible()
    assert "what=checkin" in page.url
    viewer = budgeted.token("reader", "viewer")
    with logged_in(browser, budgeted, viewer) as other:
        other.page.goto("/time")
        expect(other.page.get_by_role("link", name="Audit")).to_have_count(0)
        expect(other.page.get_by_role("button", name="Pause")).to_have_count(0)
        assert other.page.request.get("/audit").status == 403
