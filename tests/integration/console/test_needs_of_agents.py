"""What agents need of a person, on the open page: a login, a release from quarantine, more of a budget."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import SOON_MS, Chromium, Window, logged_in
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Start
from nodes import Broker, Node
from playwright.sync_api import expect
from served import Served, served
from waiting import until

from torch_tasks import Torch
from torch_tasks.model.agent import AgentState
from torch_tasks.model.node import KeptState

LONG = 4 * SOON_MS
BUDGETS = '{"small": {"calls_per_day": 1}}'


@pytest.fixture(scope="module")
def server(broker: Broker, torch: Torch) -> Iterator[Served]:
    """The server of a fleet with an account that is small."""
    with served(broker, TORCH_BUDGETS=BUDGETS) as server:
        yield server


@pytest.fixture
def window(browser: Chromium, server: Served) -> Iterator[Window]:
    with logged_in(browser, server) as window:
        window.page.goto("/")
        expect(window.page.get_by_text("Nothing waits for you")).to_be_visible()
        yield window


def test_a_login_is_shown_until_a_person_gives_it_in_the_terminal(window: Window, node: Node, torch: Torch) -> None:
    page, scenario = window.page, Scenario(start=Start(dialogs=("sign-in", "trust")))
    worker = FakeKind(node, scenario=scenario).worker()
    task = torch.enqueue("for developer-1 alone", agent="developer-1")
    login = page.locator(".card", has_text="wants a login")
    expect(login.locator(".state")).to_have_text("login", timeout=LONG)
    expect(login).to_contain_text("torch-tasks attach developer-1")
    login.get_by_role("link", name="Open its terminal").click()
    expect(page.locator("#pane")).to_contain_text("Sign in to go on:", timeout=LONG)
    page.go_back()
    expect(login).to_be_visible()
    worker.tmux("send-keys", "1")
    expect(login).to_have_count(0, timeout=LONG)
    assert task.result(timeout=60).succeeded


def test_an_agent_is_released_from_quarantine(window: Window, node: Node, torch: Torch) -> None:
    page, lost = window.page, node.folder / "lost"
    lost.mkdir()
    worker = node.node_worker(TORCH_QUARANTINE_CRASHES="1")
    torch.spawn("qa", workdir=lost)
    lost.rmdir()
    hosted = node.kept_worker("qa-1")
    assert hosted
    hosted.kill()
    until(lambda: (kept := worker.kept("qa-1")) and kept.state is KeptState.QUARANTINED, "it is in quarantine")
    card = page.locator(".card", has=page.get_by_role("button", name="Release"))
    expect(card).to_contain_text("qa-1", timeout=LONG)
    lost.mkdir()
    card.get_by_role("button", name="Release").click()
    expect(page.locator("#said")).to_contain_text("qa-1")
    expect(card).to_have_count(0, timeout=LONG)
    assert torch.enqueue("echo back", agent="qa-1").result(timeout=60).answer == "back\n"


def test_an_account_over_its_budget_says_how_much_and_leads_to_it(window: Window, node: Node, torch: Torch) -> None:
    page = window.page
    FakeKind(node, account="small").worker(TORCH_BUDGETS=BUDGETS)
    assert torch.enqueue("the one call", agent="developer-1").result(timeout=60).succeeded
    torch.enqueue("one too many", agent="developer-1")
    until(lambda: torch.agent("developer-1").state is AgentState.LIMITED, "the agent is limited")
    card = page.locator(".card", has=page.get_by_role("link", name="Limits and use of this account"))
    expect(card).to_contain_text("calls per day: 1 of 1", timeout=LONG)
    card.get_by_role("link", name="Limits and use of this account").click()
    expect(page.locator("#account-small")).to_contain_text("1 of 1")
