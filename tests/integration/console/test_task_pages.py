"""The board and the pages of tasks, before a real fleet in a real browser."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, Window, logged_in
from git_parts import Repository
from nodes import AgentWorker, Broker, Node
from playwright.sync_api import Page, expect
from served import Served
from waiting import until

from torch_tasks import TaskResult, TaskState, Torch, keys

HOSTILE = "<script>window.was_run = 1</script><img src=x onerror='window.was_run = 2'> \x1b[31mred \u202eoot"


@pytest.fixture(scope="module")
def dev(shared_node: Node) -> AgentWorker:
    """The one agent of the module's fleet."""
    return shared_node.agent_worker("dev-1")


@pytest.fixture
def window(browser: Chromium, server: Served, dev: AgentWorker) -> Iterator[Window]:
    with logged_in(browser, server) as window:
        yield window
        assert window.page.evaluate("window.was_run") is None, "what an agent wrote was run"


@pytest.fixture
def page(window: Window) -> Page:
    return window.page


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A user's repository."""
    return Repository(tmp_path_factory.mktemp("tree") / "repo")


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


def test_a_task_is_handed_over_to_the_agent_that_is_typed(
    page: Page, torch: Torch, shared_node: Node, tmp_path: Path
) -> None:
    shared_node.agent_worker("dev-2")
    script = f"[ -e {tmp_path}/second ] || {{ touch {tmp_path}/second; sleep 600; }}; echo by $TORCH_AGENT"
    task = torch.enqueue(script, title="For somebody else", agent="dev-1")
    until((tmp_path / "second").exists, "the first agent has begun")
    page.goto(f"/tasks/{task.id}")
    page.get_by_text("Hand over", exact=True).first.click()
    page.get_by_label("To an agent or a role").fill("dev-2")
    page.get_by_label("What it should know").fill("Mind the <b>step</b>")
    page.get_by_role("button", name="Hand over").click()
    expect(page.locator("#state .state")).to_have_text("succeeded", timeout=40_000)
    expect(page.locator("#handoffs")).to_contain_text("handed it over to dev-2 from dev-1")
    expect(page.locator("#handoffs pre").first).to_have_text("Mind the <b>step</b>")
    assert task.record().agent == "dev-2"


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


def test_a_task_is_enqueued_by_the_form(page: Page, window: Window, torch: Torch) -> None:
    first, prompt = torch.enqueue("true", title="The first one", agent="dev-1"), "echo \"it was typed & 'done'\""
    first.result(timeout=40)
    page.goto("/tasks")
    page.get_by_role("link", name="New task").click()
    page.get_by_label("What the agent shall do").fill(prompt)
    page.get_by_label("Agent", exact=True).fill("dev-1")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Time limit").fill("soon")
    page.get_by_label("Begin after these tasks").fill(f"{first.id} ")
    page.get_by_role("button", name="Hand it to the fleet").click()
    expect(page.locator("[data-trouble]")).to_contain_text("timeout: ")
    expect(page.get_by_label("Time limit")).to_be_focused()
    window.errors.clear()  # the browser notes the status 400
    expect(page.get_by_label("What the agent shall do")).to_have_value(prompt)
    page.get_by_label("Time limit").fill("2m")
    page.get_by_role("button", name="Hand it to the fleet").click()
    expect(page).to_have_url(re.compile(r"/tasks/[0-9a-f]{32}$"))
    expect(page.locator("#state .state")).to_have_text("succeeded", timeout=40_000)
    expect(page.locator("#answer")).to_contain_text("it was typed & 'done'")
    task = torch.task(page.url.rpartition("/")[2])
    assert (task.record().spec.timeout, task.record().spec.after) == (120.0, (first.id,))
    page.get_by_role("link", name="Copy as a new task").click()
    expect(page.get_by_label("What the agent shall do")).to_have_value(prompt)
    expect(page.get_by_label("Begin after these tasks")).to_have_value(first.id)


def test_without_scripts_a_refused_form_keeps_what_was_typed(browser: Chromium, server: Served, torch: Torch) -> None:
    with logged_in(browser, server, java_script_enabled=False) as window:
        page = window.page
        page.goto("/enqueue")
        page.get_by_label("What the agent shall do").fill("echo <b>")
        page.get_by_label("Role").select_option("")
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Tries again after a crash").fill("many")
        page.get_by_role("button", name="Hand it to the fleet").click()
        expect(page.get_by_role("alert")).to_contain_text("max_retries: ")
        expect(page.get_by_label("What the agent shall do")).to_have_value("echo <b>")
        expect(page.get_by_label("Tries again after a crash")).to_have_value("many")
        window.errors.clear()  # the browser notes the status 422


def test_dependencies_are_a_graph_of_links(page: Page, torch: Torch, tmp_path: Path) -> None:
    first = torch.enqueue(await_file(tmp_path / "go"), title="<i>First</i>", agent="dev-1")
    beside = [torch.enqueue("true", title=f"Middle {n}", agent="dev-1", after=[first.id]) for n in range(2)]
    last = torch.enqueue("true", title="Last", agent="dev-1", after=[one.id for one in beside])
    page.goto(f"/tasks/{beside[0].id}")
    expect(page.locator("#waits")).to_contain_text("<i>First</i>")
    graph = page.locator("svg.graph")
    expect(graph.get_by_role("link")).to_have_count(3)
    expect(graph.get_by_role("link", name="<i>First</i>: running")).to_be_visible()
    graph.get_by_role("link", name="Last: pending").click()
    expect(page.get_by_role("heading", name="Last")).to_be_visible()
    expect(page.locator("svg.graph").get_by_role("link")).to_have_count(4)
    (tmp_path / "go").touch()
    last.result(timeout=40).raise_for_status()
    expect(page.locator("svg.graph").get_by_role("link", name="Middle 1: succeeded")).to_be_visible()


def test_what_a_task_changed_comes_from_its_agents_machine(
    page: Page, torch: Torch, shared_node: Node, tree: Repository, tmp_path: Path
) -> None:
    (tmp_path / "git.toml").write_text("[roles.coder]\nenabled = true\ncommit_minutes = 0\nworktree = true\n")
    coder = shared_node.agent_worker("coder-1", "coder", workdir=tree.folder, TORCH_CONFIG_DIR=str(tmp_path))
    script = "echo '<script>window.was_run = 5</script>' >> app.py; echo new > beside.txt"
    task = torch.enqueue(script, title="Change the app", agent="coder-1")
    task.result(timeout=40).raise_for_status()
    page.goto(f"/tasks/{task.id}")
    page.get_by_role("link", name="Show what it changed").click()
    expect(page.locator(".diff .added", has_text="<script>window.was_run = 5</script>")).to_be_visible()
    expect(page.locator("ul code")).to_have_text("beside.txt")
    plain = torch.enqueue("true", agent="dev-1")
    plain.result(timeout=40)
    page.goto(f"/tasks/{plain.id}/diff")
    expect(page.get_by_text("it was not done in a git tree that Torch looked at")).to_be_visible()
    coder.kill("SIGTERM")
    coder.end_terminal()
    page.goto(f"/tasks/{task.id}/diff")
    expect(page.get_by_text("coder-1 on node-a, where its tree is, is away or gone")).to_be_visible()


def test_an_end_that_nobody_signed_is_shown_and_not_believed(page: Page, torch: Torch, broker: Broker) -> None:
    task = torch.enqueue("exit 3", title="It failed", agent="dev-1", max_retries=0)
    assert task.result(timeout=60).status is TaskState.FAILED
    record = keys.task_record(task.id)
    claimed = TaskResult(task_id=task.id, status=TaskState.SUCCEEDED, answer="All of it works.").model_dump_json()
    forged = {"state": TaskState.SUCCEEDED, "result": claimed, "end_signature": "by.nobody.at.all"}
    broker.client.hset(record, mapping=forged)
    page.goto(f"/tasks/{task.id}")
    expect(page.locator("#forged")).to_contain_text("no node of this fleet says so")
    assert state_of(page) == "succeeded (not believed)"
    assert "All of it works." not in page.locator("main").inner_text()
    page.goto("/tasks?q=failed")
    expect(page.locator(f"#row-{task.id} .state")).to_have_text("succeeded (not believed)")
    assert broker.client.hget(record, "state") == TaskState.SUCCEEDED, "nothing has mended it meanwhile"


def test_an_end_that_was_written_over_is_shown_as_it_was_signed(page: Page, torch: Torch, broker: Broker) -> None:
    task = torch.enqueue("exit 3", title="It failed, too", agent="dev-1", max_retries=0)
    assert task.result(timeout=60).status is TaskState.FAILED
    broker.client.hset(keys.task_record(task.id), "state", TaskState.SUCCEEDED)
    page.goto(f"/tasks/{task.id}")
    assert state_of(page) == "failed"
    expect(page.get_by_text("it was written over as succeeded, which is undone")).to_be_visible()
