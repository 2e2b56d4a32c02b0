"""What waits for a person appears on the open page, and a click does what it asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import SOON_MS, Chromium, Window, logged_in
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Ask, Say
from nodes import Node
from playwright.sync_api import Locator, expect
from served import Served
from waiting import until

from torch_tasks import Task, Torch
from torch_tasks.model.task import TaskState

CRASHES = "kill -9 $PPID $$"
ASKS = Scenario(Turn((Ask("Which colour?", ("Red", "Blue")), Say("Then {choice}."))))


@pytest.fixture(scope="module")
def fake(shared_node: Node) -> FakeKind:
    """A machine that starts agents, and one agent, whose program asks."""
    shared_node.node_worker()
    fake = FakeKind(shared_node, scenario=ASKS)
    fake.worker()
    return fake


@pytest.fixture
def window(browser: Chromium, server: Served, fake: FakeKind) -> Iterator[Window]:
    with logged_in(browser, server) as window:
        window.page.goto("/")
        yield window


def asking(torch: Torch, prompt: str = "paint the door") -> Task:
    return torch.enqueue(prompt, agent="developer-1")


def card(window: Window, task: Task) -> Locator:
    return window.page.locator(".card", has=window.page.locator(f'a[href="/tasks/{task.id}"]'))


def test_a_question_comes_without_a_reload_and_a_double_click_answers_it_once(window: Window, torch: Torch) -> None:
    page = window.page
    expect(page.get_by_text("Nothing waits for you")).to_be_visible()
    expect(page).to_have_title("Needs you · Torch")
    task = asking(torch)
    question = card(window, task)
    expect(question.locator(".need-text")).to_have_text("Which colour?")
    expect(question.get_by_role("link", name="paint the door")).to_be_visible()
    expect(page).to_have_title("(1) Needs you · Torch")
    expect(page.locator("#needed")).to_have_text("1")
    question.get_by_role("button", name="Blue").dblclick()
    expect(page.locator("#said")).to_contain_text("answered: 2")
    expect(page.locator("#said p")).to_have_count(1)
    expect(question).to_have_count(0)
    expect(page.get_by_text("Nothing waits for you")).to_be_visible()
    expect(page).to_have_title("Needs you · Torch")
    assert task.result(timeout=30).answer == "Then Blue."


def test_an_answer_to_a_question_that_was_answered_elsewhere_says_so(
    browser: Chromium, server: Served, window: Window, torch: Torch
) -> None:
    task = asking(torch, "paint the wall")
    with logged_in(browser, server, java_script_enabled=False) as other:
        expect(card(window, task)).to_be_visible()
        other.page.goto("/")  # without scripts it stays as it is now
        task.answer("1")
        expect(card(window, task)).to_have_count(0)
        late = card(other, task)
        late.get_by_role("button", name="Blue").click()
        expect(other.page.get_by_role("alert")).to_contain_text("has been answered meanwhile, with")
        other.errors.clear()  # the page that says so is no success
    assert task.result(timeout=30).answer == "Then Red."


def test_a_question_is_answered_in_words(window: Window, torch: Torch) -> None:
    task = asking(torch, "paint the fence")
    question = card(window, task)
    question.get_by_text("Answer in words").click()
    question.get_by_label("Your answer").fill("blue")
    question.get_by_role("button", name="Answer", exact=True).click()
    expect(question).to_have_count(0)
    assert task.result(timeout=30).answer == "Then Blue."


def test_a_form_works_without_scripts(browser: Chromium, server: Served, fake: FakeKind, torch: Torch) -> None:
    task = asking(torch, "paint the roof")
    with logged_in(browser, server) as scripted:
        scripted.page.goto("/")
        expect(card(scripted, task)).to_be_visible()
    with logged_in(browser, server, java_script_enabled=False) as plain:
        plain.page.goto("/")
        card(plain, task).get_by_role("button", name="Red").click()
        expect(plain.page).to_have_url(f"{server.url}/")
        expect(card(plain, task)).to_have_count(0)
    assert task.result(timeout=30).answer == "Then Red."


def test_a_dead_letter_is_replayed_and_another_is_dropped_after_it_was_asked(
    window: Window, shared_node: Node, torch: Torch
) -> None:
    shared_node.agent_worker("qa-1", "qa")
    replayed, dropped = (torch.enqueue(f"{CRASHES} # {name}", agent="qa-1", max_retries=0) for name in ("one", "two"))
    for task in (replayed, dropped):
        assert task.result(timeout=60).status is TaskState.DEAD
    card(window, replayed).get_by_role("button", name="Replay").click()
    expect(window.page.locator("#said")).to_contain_text(f"task {replayed.id} is queued again")
    until(lambda: any(entry.note == "replayed" for entry in replayed.history()), "the task is replayed")
    late = card(window, dropped)
    late.get_by_text("Drop", exact=True).click()
    expect(late.get_by_text("It is deleted for good")).to_be_visible()
    late.get_by_role("button", name="Yes, drop").click()
    expect(late).to_have_count(0)
    assert dropped.id not in [one.spec.id for one in torch.dead()]


def test_tasks_that_nobody_serves_get_an_agent_from_the_form_that_is_filled_in(window: Window, torch: Torch) -> None:
    page = window.page
    task = torch.enqueue("echo served", role="writer", skills=["prose"])
    lost = page.locator(".card", has_text="no live agent serves writer+prose")
    expect(lost).to_be_visible(timeout=4 * SOON_MS)
    expect(lost).to_contain_text("An agent of the role writer, with prose, would serve them.")
    lost.get_by_text("Spawn an agent that serves them").click()
    expect(lost.get_by_label("Role")).to_have_value("writer")
    expect(lost.get_by_label("Skills")).to_have_value("prose")
    lost.get_by_role("button", name="Spawn").click()
    expect(page.locator("#spawned")).to_have_text("writer-1 is ready on node-a.", timeout=4 * SOON_MS)
    assert task.result(timeout=30).answer == "served\n"


def test_what_agents_write_is_text(window: Window, fake: FakeKind, torch: Torch) -> None:
    fake.cli.play(Scenario(Turn((Ask("<b>Which</b> <script>x</script>?", ("<i>Red</i>", "Blue")), Say("{choice}")))))
    task = torch.enqueue("paint it", title="<img src=x onerror=alert(1)>", agent="developer-1")
    question = card(window, task)
    expect(question.locator(".need-text")).to_have_text("<b>Which</b> <script>x</script>?")
    expect(question.get_by_role("link", name="<img src=x onerror=alert(1)>")).to_be_visible()
    assert question.locator("img, b, i, script").count() == 0
    question.get_by_role("button", name="<i>Red</i>").click()
    expect(question).to_have_count(0)
    assert task.result(timeout=30).answer == "<i>Red</i>"
