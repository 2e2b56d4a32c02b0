"""What holds for every page of the console: who may see it, its menu, its news, how its forms are guarded."""

from __future__ import annotations

import re

import httpx2
from chromium import Chromium, logged_in
from nodes import Node
from playwright.sync_api import expect
from served import Served


def test_an_open_page_shows_an_agent_as_soon_as_it_comes(browser: Chromium, server: Served, shared_node: Node) -> None:
    with logged_in(browser, server) as window:
        page = window.page
        page.goto("/fleet")
        expect(page.get_by_text("There are no agents yet")).to_be_visible()
        shared_node.agent_worker("dev-1")
        expect(page.get_by_role("link", name="dev-1")).to_be_visible()
        expect(page.locator("#agent-dev-1 .state")).to_have_text("ready")


def test_a_form_that_no_page_of_the_login_holds_is_refused(server: Served) -> None:
    with httpx2.Client(base_url=server.url, trust_env=False, headers={"Origin": server.url}) as browser:
        browser.post("/login", data={"token": server.own_token})
        frame = browser.get("/", headers={"Accept": "text/html"})
        assert frame.status_code == 200
        refused = browser.post("/do/fleet.stop", data={"_proof": "guessed"}, headers={"X-Torch-Console": "script"})
        assert (refused.status_code, refused.json()["error"]) == (403, "RequestNotTaken")
        proof = re.search(r'name="_proof" value="(\w+)"', browser.get("/fleet").text)
        assert proof
        form = {"_proof": proof[1], "checkin_id": "unknown"}
        taken = browser.post("/do/checkin.remove", data=form, headers={"X-Torch-Console": "script"})
        assert (taken.status_code, taken.json()["error"]) == (404, "CheckinNotFound")
