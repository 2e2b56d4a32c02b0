"""The page of one agent: its live terminal, read once for all who look; and a person who takes it over."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from chromium import DESK, PHONE, SOON_MS, Chromium, Window, logged_in
from nodes import AgentWorker, Broker, Node
from playwright.sync_api import Locator, expect
from served import Served, served
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.communication.messenger import Messenger
from torch_tasks.server.console.pane_rows import THUMB_ROWS

pytestmark = pytest.mark.slow
AGENT = "dev-1"
expect.set_options(timeout=SOON_MS)
MARKUP = "<script>document.title=1</script><img src=x onerror=alert(1)>"
HOSTILE = rf"printf '{MARKUP} \342\200\256evil \033]8;;http://x/\033\\a-link\033]8;;\033\\ %s\n'"

READER = r"""
import os, sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
os.write(1, b"\x1b[?2004hready\r\n")
got = b""
while not got.endswith(b"\x1b[201~"):
    got += os.read(0, 100)
open(sys.argv[1], "wb").write(got)
termios.tcsetattr(0, termios.TCSADRAIN, before)
print("\x1b[?2004lit-has-read")
"""
"""Reads keys one by one until a paste ends, and writes down what it read."""
PASTE = """text => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  document.getElementById("pane").dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
}"""

HIDE = """isHidden => {
  Object.defineProperty(document, "hidden", {configurable: true, value: isHidden});
  document.dispatchEvent(new Event("visibilitychange"));
}"""

THUMB = """agent => {
  const thumb = document.createElement("div");
  Object.assign(thumb, {className: "thumb", id: "picture"}).dataset.pane = agent;
  document.body.append(thumb);
  document.dispatchEvent(new CustomEvent("torch-shown"));
}"""


@pytest.fixture(scope="module")
def dev(shared_node: Node, server: Served) -> AgentWorker:
    return shared_node.agent_worker(AGENT)


@pytest.fixture
def window(browser: Chromium, server: Served, dev: AgentWorker) -> Iterator[Window]:
    with logged_in(browser, server) as window:
        window.page.goto(f"/agents/{AGENT}")
        expect(pane(window)).to_contain_text(f"{AGENT}>")
        yield window


def pane(window: Window) -> Locator:
    return window.page.locator("#pane")


def does(torch: Torch, command: str) -> None:
    """The shell agent runs the command in its pane."""
    assert torch.enqueue(command, agent=AGENT).result(timeout=60).succeeded


def test_the_terminal_changes_live_with_its_colours_and_its_cursor(window: Window, torch: Torch) -> None:
    does(torch, r"printf '\033[1;31mred\033[0m \033[48;5;17mblue\033[0m 漢字\n'")
    expect(pane(window).locator(".f1.bold")).to_have_text("red")
    expect(pane(window).locator(".b17")).to_have_text("blue")
    expect(pane(window).locator(".w2").first).to_have_text("漢")
    expect(pane(window).locator(".cursor")).to_have_count(1)


def test_two_windows_have_one_reader_and_nobody_reads_once_none_looks(
    window: Window, browser: Chromium, server: Served, broker: Broker, torch: Torch
) -> None:
    channel = keys.drawn_screen(AGENT)
    with logged_in(browser, server) as other:
        other.page.goto(f"/agents/{AGENT}")
        does(torch, "echo both-$((6 * 7))")
        for one in (window, other):
            expect(pane(one)).to_contain_text("both-42")
        assert broker.client.pubsub_numsub(channel)[0][1] == 1
    window.page.goto("/fleet")
    until(lambda: broker.client.pubsub_numsub(channel)[0][1] == 0, "nobody reads it any more")


def test_what_a_program_writes_is_data(window: Window, torch: Torch) -> None:
    title = window.page.title()
    does(torch, f"{HOSTILE} $((40 + 2))x; head -c 1000000 /dev/zero | tr '\\0' y; echo; echo 'ghp_{'a1B2' * 9}'")
    expect(pane(window)).to_contain_text("[redacted: a GitHub token]")
    does(torch, f"{HOSTILE} $((40 + 2))y")
    shown = pane(window).locator(".row", has_text=re.compile("42y"))
    expect(shown).to_have_text(re.compile(f"^{re.escape(MARKUP)} .*a-link 42y$"))
    assert "\u202e" not in shown.inner_text()
    assert pane(window).locator("script, img, a").count() == 0
    assert window.page.title() == title


def test_what_has_left_the_screen_is_read_on_request(window: Window, torch: Torch) -> None:
    does(torch, r"for n in $(seq 1 500); do printf '\033[32mline-%s\033[0m\n' $n; done")
    window.page.get_by_role("link", name="Lines above the screen").click()
    above = window.page.locator(".pane.above")
    expect(above).to_contain_text("line-400")
    expect(above.locator(".f2").first).to_be_visible()
    window.page.get_by_role("link", name="Older lines").first.click()
    expect(above).to_contain_text("line-40")
    window.page.get_by_role("link", name="Back to the screen").first.click()
    expect(pane(window)).to_contain_text("line-500")


def place(window: Window) -> tuple[float, float]:
    """How far the terminal is scrolled, and how far it can be."""
    top, most = pane(window).evaluate("pane => [pane.scrollTop, pane.scrollHeight - pane.clientHeight]")
    return float(top), float(most)


def is_at_end(window: Window) -> bool:
    top, most = place(window)
    return abs(most - top) <= 1


def test_the_newest_line_stays_in_view_unless_somebody_has_scrolled_up(window: Window, torch: Torch) -> None:
    page, desk = window.page, dict(DESK)
    write = "for n in $(seq 90); do echo {}-$n; done"
    does(torch, write.format("first"))
    expect(pane(window)).to_contain_text("first-90")
    assert pane(window).locator(".row").count() >= 50
    until(lambda: is_at_end(window), "the newest line is in view")
    most = place(window)[1]
    assert most > 100, "there is more than fits"
    page.set_viewport_size({**desk, "height": 500})  # as when a phone shows its keyboard
    until(lambda: place(window)[1] > most + 100, "less of it fits")
    until(lambda: is_at_end(window), "the end is in view again")
    pane(window).hover()
    page.mouse.wheel(0, -150)
    until(lambda: place(window)[0] < place(window)[1] - 100, "it is scrolled up")
    kept = place(window)[0]
    does(torch, write.format("second"))
    expect(pane(window)).to_contain_text("second-90")
    assert place(window)[0] == kept, "it stays where somebody has scrolled to"
    page.mouse.wheel(0, 5000)
    until(lambda: is_at_end(window), "somebody is back at the end")
    does(torch, write.format("third"))
    expect(pane(window)).to_contain_text("third-90")
    until(lambda: is_at_end(window), "it follows again")
    does(torch, "clear; echo alone")
    expect(pane(window).locator(".row").first).to_have_text("alone")
    until(lambda: place(window)[0] == 0, "what stands at the top of an empty screen is in view")


def test_the_terminal_stays_as_it_is_while_what_stands_above_it_comes_and_goes(window: Window, torch: Torch) -> None:
    does(torch, "for n in $(seq 90); do echo kept-$n; done")
    expect(pane(window)).to_contain_text("kept-90")
    until(lambda: is_at_end(window), "the newest line is in view")
    pane(window).focus()
    torch.pause(agent=AGENT, reason="somebody looks")
    expect(window.page.locator("#hold")).to_contain_text("somebody looks")
    torch.resume(agent=AGENT)
    expect(window.page.locator("#hold")).to_have_count(0)
    assert is_at_end(window)
    expect(pane(window)).to_be_focused()


def test_the_page_shows_what_it_did_lately_and_its_tasks(window: Window, torch: Torch) -> None:
    done = torch.enqueue("echo lately", title="Something of its own", agent=AGENT)
    done.result(timeout=60)
    lately = window.page.locator("#steps li", has=window.page.locator(f'a[href="/tasks/{done.id}"]'))
    expect(lately.filter(has_text="succeeded")).to_have_count(1)
    expect(lately.filter(has_text="running").first).to_be_visible()
    expect(window.page.locator("#tasks")).to_contain_text("Something of its own")


def test_the_page_says_why_and_takes_a_message(window: Window, torch: Torch) -> None:
    window.page.get_by_role("link", name="Why this state?").click()
    expect(window.page.locator("#evidence")).to_contain_text("foreground process")
    window.page.get_by_label(f"Message to {AGENT}").fill("echo said-$((6 * 7))")
    window.page.get_by_role("button", name="Send").click()
    expect(pane(window)).to_contain_text("said-42")


@pytest.fixture
def mine(window: Window) -> Iterator[Window]:
    """The window of a person who has taken the terminal over."""
    window.page.get_by_role("button", name="Take over").click()
    expect(window.page.locator("#mine")).to_be_visible()
    yield window
    window.page.goto(f"/agents/{AGENT}")
    if window.page.get_by_role("button", name="Give back").count():
        window.page.get_by_role("button", name="Give back").click()
    expect(window.page.locator("#mine")).to_have_count(0)


def test_a_person_types_pastes_and_gives_back_and_then_a_task_runs(mine: Window, torch: Torch, tmp_path: Path) -> None:
    program, read = tmp_path / "reader.py", tmp_path / "read"
    program.write_text(READER)
    assert torch.agent(AGENT).hold_reason.startswith("taken over by ")
    pane(mine).click()
    keyboard = mine.page.keyboard
    keyboard.type(f"{sys.executable} {program} {read}")
    keyboard.press("Enter")
    expect(pane(mine).locator(".row", has_text=re.compile("^ready"))).to_be_visible()
    waiting = torch.enqueue("echo began-$((6 * 7))", agent=AGENT)
    message = torch.send(AGENT, "echo message-$((6 * 7))")
    keyboard.type("a;$x")
    for key in ("Enter", "Escape", "ArrowUp", "Tab", "Control+c", "Backspace"):
        keyboard.press(key)
    mine.page.evaluate(PASTE, "two\nlines")
    expect(pane(mine)).to_contain_text("it-has-read")
    assert read.read_bytes() == b"a;$x\r\x1b\x1b[A\t\x03\x7f\x1b[200~two\nlines\x1b[201~"
    assert not waiting.record().state.ended
    assert Messenger().record(message.id).delivered_at is None
    mine.page.get_by_role("button", name="Give back").click()
    assert waiting.result(timeout=60).answer.strip() == "began-42"
    expect(pane(mine)).to_contain_text("message-42")


def test_two_persons_do_not_have_one_terminal(mine: Window, browser: Chromium, server: Served) -> None:
    with logged_in(browser, server, server.token("other", "operator")) as other:
        other.page.goto(f"/agents/{AGENT}")
        expect(other.page.locator("#hold")).to_contain_text("taken over by")
        assert other.page.get_by_role("button", name="Take over").count() == 0
        proof = other.page.locator("[name=_proof]").first.get_attribute("value")
        for operation, error in (("agent.take_over", "PaneTaken"), ("agent.type", "NotTakenOver")):
            form = {"agent_id": AGENT, "_proof": str(proof)} | ({"text": "x"} if operation == "agent.type" else {})
            headers = {"X-Torch-Console": "script", "Origin": server.url}
            reply = other.page.request.post(f"/do/{operation}", form=form, headers=headers)
            assert (reply.status, reply.json()["error"]) == (409, error)


def test_a_task_that_runs_is_not_disturbed(window: Window, torch: Torch) -> None:
    task = torch.enqueue("read -r line; echo got-$line", agent=AGENT)
    expect(window.page.locator(f'#steps a[href="/tasks/{task.id}"]').first).to_be_visible()
    window.page.get_by_role("button", name="Take over").click()
    window.page.get_by_label("Line").fill("by-hand")
    window.page.get_by_role("button", name="Type it, and Enter").click()
    assert task.result(timeout=60).answer.strip().endswith("got-by-hand")
    window.page.get_by_role("button", name="Give back").click()
    expect(window.page.locator("#mine")).to_have_count(0)


def test_small_pictures_are_live_only_while_they_are_in_view(window: Window, broker: Broker, torch: Torch) -> None:
    channel, page = keys.drawn_screen(AGENT), window.page
    page.goto("/time")  # a page without other pictures of the agent
    page.evaluate(THUMB, AGENT)
    thumb = page.locator("#picture")
    does(torch, r"printf '\033[35msmall-%s\033[0m\n' $((6 * 7))")
    expect(thumb.locator(".f5")).to_have_text("small-42")
    assert thumb.locator(".row").count() <= THUMB_ROWS
    page.evaluate("document.querySelector('#picture').style.marginTop = '5000px'")
    until(lambda: broker.client.pubsub_numsub(channel)[0][1] == 0, "nobody reads what nobody sees")
    thumb.scroll_into_view_if_needed()
    does(torch, "echo again-$((6 * 7))")
    expect(thumb).to_contain_text("again-42")


def test_what_is_typed_is_in_the_audit_without_its_text(mine: Window, server: Served) -> None:
    pane(mine).click()
    mine.page.keyboard.type("unsaid")
    expect(pane(mine)).to_contain_text("unsaid")
    mine.page.keyboard.press("Control+c")
    shown = server.command("audit", "show", "--since", "1h", "--json").stdout
    assert {"agent.take_over", "agent.type"} <= set(re.findall(r"agent\.(?:take_over|type)", shown))
    assert "unsaid" not in shown


def test_a_viewer_sees_the_terminal_and_may_do_nothing(browser: Chromium, server: Served, dev: AgentWorker) -> None:
    with logged_in(browser, server, server.token("guest", "viewer"), viewport=PHONE) as guest:
        guest.page.goto(f"/agents/{AGENT}")
        expect(pane(guest)).to_contain_text(f"{AGENT}>")
        assert guest.page.locator("main form").count() == 0
        width = guest.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], "the page itself does not scroll sideways"


@pytest.mark.parametrize("asked", ["kinds=nonsense", f"agents={','.join(f'dev-{n}' for n in range(201))}"])
def test_what_a_window_cannot_follow_is_refused(window: Window, asked: str) -> None:
    assert window.page.request.get(f"/live?{asked}").status == 422


def test_a_window_that_nobody_sees_has_no_stream_and_shows_what_happened_once_it_is_seen(
    window: Window, broker: Broker, torch: Torch
) -> None:
    channel, page = keys.drawn_screen(AGENT), window.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(HIDE, True)
    until(lambda: broker.client.pubsub_numsub(channel)[0][1] == 0, "nobody reads what nobody sees")
    asked.clear()
    does(torch, "echo hidden-$((6 * 7))")
    assert not asked, "it asks for nothing meanwhile"
    page.evaluate(HIDE, False)
    expect(pane(window)).to_contain_text("hidden-42")
    assert len([url for url in asked if "/live?" in url]) == 1, "one stream for all that the window follows"
    expect(page.locator("#tasks")).to_contain_text("hidden-")


def test_more_windows_than_a_browser_has_connections_all_follow(window: Window, torch: Torch) -> None:
    others = [window.page.context.new_page() for _ in range(4)]
    for other in others:
        other.goto(f"/agents/{AGENT}", wait_until="domcontentloaded")
    does(torch, "echo everywhere-$((6 * 7))")
    for page in (window.page, *others):
        expect(page.locator("#pane")).to_contain_text("everywhere-42")
        expect(page.locator("#tasks")).to_contain_text("everywhere-")
    for other in others:
        other.close()


def test_the_server_ends_at_once_whoever_looks(browser: Chromium, broker: Broker, dev: AgentWorker) -> None:
    with served(broker) as server, logged_in(browser, server) as window:
        window.page.goto(f"/agents/{AGENT}")
        expect(pane(window)).to_contain_text(f"{AGENT}>")
        begun = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - begun < 2
        expect(window.page.locator("#connection")).to_contain_text("does not answer")
        window.errors.clear()  # what the browser says of a server that is away


def test_who_may_not_watch_gets_no_terminal(server: Served, browser: Chromium) -> None:
    with ExitStack() as stack:
        window = stack.enter_context(logged_in(browser, server, server.token("robot", "program")))
        reply = window.page.request.get(f"/live?agents={AGENT}")
        assert (reply.status, reply.json()["error"]) == (403, "NotAllowed")
