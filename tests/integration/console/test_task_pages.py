"""The board and the pages of tasks, before a real fleet in a real browser."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, logged_in
from nodes import AgentWorker, Node
from playwright.sync_api import Page, expect
from served import Served
from waiting import until

from torch_tasks import TaskState, Torch

HOSTILE = "<script>window.was_run = 1</script><img src=x onerror='window.was_run = 2'> \x1b[31mred \u202eoot"


@pytest.fixture(scope="module")
def dev(shared_node: Node) -> AgentWorker:
    """The one agent of the module's fleet."""
    return shared_node.agent_worker("dev-1")


@pytest.fixture
def page(browser: Chromium, server: Served, dev: AgentWorker) -> Iterator[Page]:
    with logged_in(browser, server) as window:
        yield window.page
        assert window.page.evaluate("window.was_run") is None, "what an agent wrote was run"


def await_file(file: Path) -> str:
    """A script that ends when the file is there."""
    return f"until [ -e {file} ]; do sleep 0.05; done"


def state_of(page: Page) -> str:
    return page.locator("#state .state").first.inner_text()


def test_a_task_is_watched_until_it_is_cancelled(page: Page, torch: Torch, tmp_path: Path) -> None:
    page.goto("/tasks")
    task = torch.enqueue(await_file(tmp_path / "never"), title="A long one", agent="dev-1")
    row = page.locator(f"#row-{task.id}")
    expect(row.locator(".state")).to_have_text("running")
    row.get_by_role("link", name="A long one").click()
    expect(page.get_by_role("heading", name="A long one")).to_be_visible()
    page.locator("summary", has_text="Cancel").click()
    expect(page.get_by_text("Its agent is interrupted at once")).to_be_visible()
    assert task.record().state is TaskState.RUNNING, "it asks first"
    page.get_by_role("button", name="Yes, cancel").click()
    expect(page.locator("#state .state")).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Yes, cancel")).to_have_count(0)


def test_the_page_of_a_task_shows_its_evidence(page: Page, torch: Torch) -> None:
    task = torch.enqueue(
        "echo '# Done'; echo; echo 'see [it](https://x.example/)'", check="echo it holds", agent="dev-1"
    )
    task.result(timeout=40).raise_for_status()
    page.goto(f"/tasks/{task.id}")
    expect(page.locator("#answer").get_by_role("heading", name="Done")).to_be_visible()
    expect(page.locator("#answer").get_by_text("(https://x.example/)")).to_be_visible()
    expect(page.locator(".way li.last")).to_contain_text("exit code 0")
    expect(page.locator(".way li.last")).to_contain_text("it holds")
    expect(page.get_by_role("heading", name="Check passed")).to_be_visible()
    expect(page.locator(".spans")).to_contain_text("attempt 1: dev-1")
    page.locator("#answer").get_by_role("link", name="As it was written").click()
    expect(page.locator("pre")).to_contain_text("see [it](https://x.example/)")


def test_a_dead_task_is_replayed(page: Page, torch: Torch, tmp_path: Path) -> None:
    crash = f"[ -e {tmp_path}/mended ] || kill -9 $PPID $$\necho well"
    task = torch.enqueue(crash, title="It crashes", max_retries=0, agent="dev-1")
    page.goto(f"/tasks/{task.id}")
    expect(page.locator("#state .state")).to_have_text("dead", timeout=40_000)
    (tmp_path / "mended").touch()
    page.get_by_role("button", name="Replay").click()
    expect(page.locator("#state .state")).to_have_text("succeeded", timeout=40_000)
    expect(page.locator(".way")).to_contain_text("replayed")


def test_hostile_texts_are_shown_as_they_are(page: Page, torch: Torch) -> None:
    script = f"cat <<'EOF'\n{HOSTILE}\n[x](javascript:window.was_run=3)\nEOF\nhead -c 1000000 /dev/zero | tr '\\0' '<'"
    task = torch.enqueue(script, title="<b>bold</b> title", agent="dev-1")
    task.result(timeout=40).raise_for_status()
    page.goto("/tasks?q=bold")
    expect(page.get_by_role("link", name="<b>bold</b> title")).to_be_visible()
    page.goto(f"/tasks/{task.id}")
    expect(page.locator("#answer")).to_contain_text("<script>window.was_run = 1</script>")
    expect(page.locator("#answer")).to_contain_text("␛[31mred ⟨U+202E⟩oot")
    expect(page.locator("#answer").get_by_role("link", name="show the whole")).to_be_visible()
    assert page.locator("main img, main script, main a[href^=javascript]").count() == 0
    page.goto(f"/tasks/{task.id}/answer")
    expect(page.locator("pre.raw")).to_contain_text("<script>window.was_run = 1</script>")
    page.goto("/tasks?q=%3Cscript%3Ewindow.was_run%3D4%3C/script%3E&agent=%22%3E%3Cscript%3E")
    expect(page.get_by_text("No task is like this.")).to_be_visible()


def test_the_board_is_found_through_its_address(page: Page, torch: Torch) -> None:
    mark = uuid.uuid4().hex[:8]
    tasks = [torch.enqueue("true", title=f"Number {n} of {mark}", role="nobody", priority="low") for n in range(60)]
    page.goto(f"/tasks?q={mark}&state=queued")
    expect(page.locator("#tab-queued")).to_contain_text("60")
    expect(page.locator("tbody tr")).to_have_count(50)
    expect(page.locator("tbody tr").first).to_contain_text("unroutable")
    page.get_by_role("link", name="Older").click()
    expect(page.locator("tbody tr")).to_have_count(10)
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_label("Title or id").fill(tasks[3].id)
    page.get_by_role("button", name="Find").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    for task in tasks:
        task.cancel()
    page.goto(f"/tasks?q={mark}")
    until(lambda: re.search(r"cancelled\s+60", page.locator("#tab-cancelled").inner_text()), "all are cancelled")
