"""Claude Code as an agent of the fleet."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium, logged_in
from hosted import AWAY_SECONDS, Hosted
from installed import PATH
from nodes import Broker, Node
from playwright.sync_api import expect
from promises import WithAccounts, WithTorchTools
from prompts import ODD_PROMPTS
from served import served

from torch_tasks import TaskState, Torch, keys
from torch_tasks.client import Task
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question
from torch_tasks.state_folder import TALLY
from torch_tasks.system.tally import read_tally
from torch_tasks.workers.certify.fake_model.steps import Await, Call, Fail, Text
from torch_tasks.workers.certify.homes import ClaudeHome, NewToClaude

pytestmark = pytest.mark.slow


class Subscriber(ClaudeHome):
    """A user with a login instead of a key."""

    def settle(self) -> None:
        self.file(".claude.json", {"hasCompletedOnboarding": True})

    @property
    def variables(self) -> dict[str, str]:
        return {**super().variables, "ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": self.key}


class LoggedOut(NewToClaude):
    """A user who has no key, and has not logged in yet."""

    @property
    def variables(self) -> dict[str, str]:
        return {**super().variables, "ANTHROPIC_API_KEY": ""}


def asking(question: str, *labels: str, several: bool = False) -> dict[str, Any]:
    """A question as the model asks it."""
    options = [{"label": label, "description": "as it says"} for label in labels]
    return {"question": question, "header": labels[0], "multiSelect": several, "options": options}


COLOUR = asking("Which colour?", "red", "blue")
ROOMS = asking("Which rooms?", "kitchen", "hall", "bath", several=True)
LAYOUT = asking("Where does the menu stand?", "side", "top")
LAYOUT["options"][0]["preview"] = "+--+----+\n|  |    |\n+--+----+"


def await_question(agent: Hosted, task: Task, about: str) -> Question:
    """The task's question as soon as it is about this, with its choices."""

    def question() -> Question | None:
        record = task.record()
        now = record.question if record.state is TaskState.WAITING else None
        return now if now and now.choices and about in now.text else None

    agent.wait(question, f"it asks {about!r}")
    found = question()
    assert found
    return found


def reply(agent: Hosted, task: Task, asked: str, words: str) -> Question:
    """Answer the task's question as soon as it is about this; returns the question."""
    found = await_question(agent, task, asked)
    task.answer(words)
    return found


def write_plan(agent: Hosted, name: str, plan: str) -> None:
    """Write the model's plan while it is held by this name, and let it go on."""
    assert isinstance(agent.home, ClaudeHome)
    agent.wait(lambda: agent.llm.holding(name), "it makes its plan")
    agent.home.file(str(agent.outside(agent.home.plan)), plan)
    agent.llm.release(name)


PASTE = """text => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  document.getElementById("pane").dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
}"""


class TestTakenOver:
    """A person who types into it in a browser."""

    home = NewToClaude

    def test_torch_leaves_it_alone_until_its_person_has_gone(self, agent: Hosted, broker: Broker) -> None:
        agent.llm.on("by hand", Await("hand"), Text("Done by hand."))
        with served(broker, TORCH_PERSON_AWAY_SECONDS=str(AWAY_SECONDS)) as server, chromium() as browser:
            with logged_in(browser, server) as window:
                page = window.page
                page.goto(f"/agents/{agent.worker.agent_id}")
                page.get_by_role("button", name="Take over").click()
                expect(page.locator("#mine")).to_be_visible()
                during = agent.give("wait for the person")
                page.locator("#pane").click()
                page.keyboard.type("by hand ")
                page.evaluate(PASTE, "and of\ntwo lines")
                expect(page.locator("#pane")).to_contain_text("two lines")
                server.end()
                expect(page.locator("#connection")).to_contain_text("does not answer")
                server.start()
                page.get_by_label("Token").fill(server.own_token)  # the server's end is the end of all logins
                page.get_by_role("button", name="Log in").click()
                expect(page.locator("#pane")).to_contain_text("two lines")
                expect(page.locator("#mine")).to_be_visible()
                window.errors.clear()  # what the browser says of a server that is away
                page.locator("#pane").click()
                page.keyboard.type(" at once")
                page.keyboard.press("Enter")
                agent.wait(lambda: agent.llm.holding("hand"), "the model works on what the person typed")
                assert agent.llm.prompts(agent.home.key) == ["by hand and of\ntwo lines at once"]
                page.get_by_role("button", name="Give back").click()
                expect(page.locator("#mine")).to_have_count(0)
                agent.wait(lambda: agent.torch.agent(agent.worker.agent_id).taken_over == "", "Torch has it back")
                assert agent.received(during.id) == [], "the person's turn is not cut short"
                agent.llm.release("hand")
                assert during.result(timeout=120).answer.startswith("You said: wait for the person")
                [received] = agent.received(during.id)
                assert "by hand" not in received
                page.get_by_role("button", name="Take over").click()
                expect(page.locator("#mine")).to_be_visible()
                after = agent.give("and once more")
            closed = time.monotonic()
            assert after.result(timeout=120).succeeded
            assert time.monotonic() - closed > AWAY_SECONDS / 3, "as long as a person counts as there"


class TestClaude(WithTorchTools, WithAccounts):
    """What all keep, and what is special here."""

    home = NewToClaude
    torch_tool = "mcp__torch__{}"
    briefed_in = "system"
    shell_tool = "Bash"
    allow_choice = "Yes"

    def kept(self, words: str) -> str:
        return words.replace("\t", "    ")

    def check_denied(self, agent: Hosted, task: Task) -> None:
        assert task.result(timeout=120).answer == "Tried."
        assert "policy does not allow" in agent.requests(task.id)[-1].tool_results[-1]

    def leave(self, agent: Hosted) -> None:
        agent.worker.tmux("send-keys", "/exit")
        agent.wait(lambda: "Exit the CLI" in agent.worker.screen(), "its menu shows the command")
        agent.worker.tmux("send-keys", "Enter")

    def test_an_idle_agent_asks_its_model_for_nothing_and_uses_no_tokens(self, agent: Hosted) -> None:
        def counted() -> float:
            return sum(numbers[0] for (name, _), numbers in read_tally(tally).items() if name == metrics.TOKENS.name)

        def beats() -> int:
            info = agent.torch.agent(agent.worker.agent_id)
            heartbeats.add(info.last_heartbeat)
            return len(heartbeats)

        heartbeats: set[datetime | None] = set()
        tally = agent.worker.folder / TALLY
        assert agent.do("say hello").usage
        agent.wait(counted, "the tokens of its task are counted")
        agent.wait(lambda: beats() > 3, "it is at rest")
        asked, used = agent.llm.requests(agent.home.key), counted()
        agent.wait(lambda: beats() > 15, "it has been at rest for a while")
        assert agent.torch.agent(agent.worker.agent_id).current_task is None
        assert agent.llm.requests(agent.home.key) == asked
        assert counted() == used

    def test_a_newcomer_was_led_through_all_its_dialogs(self, agent: Hosted) -> None:
        assert isinstance(agent.home, NewToClaude)
        assert {"api.anthropic.com/api/hello", "platform.claude.com/v1/oauth/hello"} <= set(agent.home.internet.asked)
        known = json.loads(agent.outside(agent.home.folder / ".claude.json").read_text())
        assert known["hasCompletedOnboarding"], "the theme and the security notes"
        assert known["customApiKeyResponses"] == {"approved": [agent.home.key], "rejected": []}
        assert known["projects"][str(agent.home.work)]["hasTrustDialogAccepted"]

    def test_the_persons_settings_are_left_alone(self, agent: Hosted) -> None:
        assert "hooks" not in json.loads(agent.outside(agent.home.folder / ".claude.json").read_text())
        assert json.loads(agent.outside(agent.home.folder / ".claude/settings.json").read_text()) == {"theme": "auto"}

    def test_a_prompt_with_tabs_lies_in_a_file(self, agent: Hosted) -> None:
        [tabs] = [odd.prompt for odd in ODD_PROMPTS if odd.name == "tabs"]
        assert agent.do(tabs, id="tabs").succeeded
        [received] = agent.received("tabs")
        file = received.rpartition("tabs and all: ")[2].partition(" ·")[0]
        assert Path(file).read_text() == tabs

    def test_a_question_is_answered_in_words(self, agent: Hosted) -> None:
        agent.llm.on("paint it", Call("AskUserQuestion", {"questions": [COLOUR]}), Text("Painted."))
        task = agent.give("paint it")
        reply(agent, task, "Which colour?", "a shade of green")
        assert task.result(timeout=120).answer == "Painted."
        assert "a shade of green" in agent.requests(task.id)[-1].tool_results[-1]

    def test_questions_are_asked_one_after_the_other(self, agent: Hosted) -> None:
        when = asking("When?", "now", "later")
        agent.llm.on(
            "furnish it",
            Call("AskUserQuestion", {"questions": [COLOUR, ROOMS, when]}),
            Text("And then:"),
            Call("AskUserQuestion", {"questions": [LAYOUT, ROOMS]}),
            Text("Furnished."),
        )
        task = agent.give("furnish it")
        assert reply(agent, task, "Which colour?", "blue").choices == ("red", "blue", "Type something.")
        assert reply(agent, task, "Which rooms?", "kitchen, 3").several
        reply(agent, task, "When?", "not before noon")
        review = reply(agent, task, "Review your answers", "1")
        assert review.choices == ("Submit answers", "Cancel")
        assert "Which rooms? → kitchen, bath ● When? → not before noon" in review.text
        assert reply(agent, task, "Where does the menu stand?", "2").choices == ("side", "top")
        reply(agent, task, "Which rooms?", "the cellar, and the roof")
        reply(agent, task, "Review your answers", "1")
        assert task.result(timeout=120).answer == "Furnished."
        first, second = agent.requests(task.id)[-1].tool_results[-2:]
        assert '"Which colour?"="blue", "Which rooms?"="kitchen, bath", "When?"="not before noon"' in first
        assert '"Where does the menu stand?"="top"' in second
        # 2.1.332 quotes an answer with a comma twice.
        assert '"Which rooms?"="the cellar, and the roof"' in second.replace('""', '"')

    def test_a_plan_is_approved_by_its_person(self, agent: Hosted) -> None:
        agent.llm.on(
            "plan it",
            *(Call("EnterPlanMode"), Await("plan"), Call("ExitPlanMode"), Text("Less:"), Call("ExitPlanMode")),
            Text("Planned."),
        )
        task = agent.give("plan it")
        write_plan(agent, "plan", "Think, and then do it.")
        asked = reply(agent, task, "Think, and then do it.", "do less")
        assert asked.subject == "ExitPlanMode()"
        assert asked.choices[1:] == ("Yes, manually approve edits", "Tell Claude what to change")
        reply(agent, task, "Think, and then do it.", "2")
        assert task.result(timeout=120).answer == "Planned."
        *_, refused, approved = agent.requests(task.id)[-1].tool_results
        assert refused.endswith("the user said:\ndo less")
        assert approved.startswith("User has approved your plan")

    def test_a_policy_that_allows_a_plan_allows_no_more(self, agent: Hosted) -> None:
        agent.llm.on(
            "plan by yourself",
            *(Call("EnterPlanMode"), Await("own-plan"), Call("ExitPlanMode")),
            *(Text("Now:"), agent.home.shell("touch planned"), Text("Planned.")),
        )
        task = agent.give("plan by yourself", permissions="allow")
        write_plan(agent, "own-plan", "Think alone.")
        assert task.result(timeout=120).answer == "Planned."
        allowed = [note for note in agent.notes(task) if note.startswith("allowed ")]
        by = "by the task's permissions"
        assert allowed == [f"allowed ExitPlanMode() {by}", f"allowed Bash(touch planned) {by}"]

    def test_an_edit_is_asked_for(self, agent: Hosted) -> None:
        file = agent.home.file("work/poem", "roses are red\n")
        edit = {"file_path": str(file), "old_string": "red", "new_string": "blue"}
        agent.llm.on(
            "edit it", Call("Read", {"file_path": str(file)}), Text("I see."), Call("Edit", edit), Text("Edited.")
        )
        task = agent.give("edit it")
        asked = reply(agent, task, "Edit", "yes")
        assert asked.subject == f"Edit({file})"
        once, always, never = asked.choices
        assert (once, always[:5], never) == ("Yes", "Yes, ", "No"), "the one between is worded anew now and then"
        assert task.result(timeout=120).answer == "Edited."
        assert file.read_text() == "roses are blue\n"
        assert "updated successfully" in agent.requests(task.id)[-1].tool_results[-1]

    @pytest.mark.parametrize(
        "number", [pytest.param(0, id="always allow this"), pytest.param(-1, id="the mode that asks nothing")]
    )
    def test_what_its_person_chose_for_later_ends_with_the_task(self, agent: Hosted, number: int) -> None:
        agent.llm.on(f"go on alone {number}", agent.home.shell(f"touch alone{number}"), Text("Alone."))
        task = agent.give(f"go on alone {number}")
        asked = await_question(agent, task, f"touch alone{number}")
        assert asked.lasting, asked.choices
        task.answer(str(asked.lasting[number]))
        assert task.result(timeout=120).answer == "Alone."
        agent.llm.on(f"and again {number}", agent.home.shell(f"touch alone{number}"), Text("Again."))
        task = agent.give(f"and again {number}")
        await_question(agent, task, f"touch alone{number}")
        assert not (agent.home.work / ".claude/settings.local.json").exists()
        task.answer("1")
        assert task.result(timeout=120).answer == "Again."

    def test_the_agents_own_word_is_evidence(self, agent: Hosted) -> None:
        agent.llm.on("own word", agent.home.shell("torch-tasks done own-word 'it works'"), Text("Reported."))
        result = agent.do("own word", id="own-word")
        assert result.succeeded
        assert [(evidence.kind, evidence.detail) for evidence in result.evidence] == [("done", "it works")]

    def test_compaction_is_waited_for(self, agent: Hosted) -> None:
        agent.llm.on("too long", Text("It fits now."))
        agent.llm.on("too long", Fail("too_long"), times=1)
        assert agent.do("too long").answer == "It fits now."
        assert any(request.side == "compaction" for request in agent.llm.requests(agent.home.key))

    def test_a_subscribers_usage_limit_parks_the_task_until_it_ends(
        self, agent: Hosted, shared_node: Node, torch: Torch, broker: Broker
    ) -> None:
        home = Subscriber(agent.home.folder.with_name("subscriber"), agent.llm, path=PATH)
        subscriber = Hosted(home, shared_node, torch, "developer-2")
        agent.llm.on("use it up", *[Fail("usage_limit", resets_in=7200)] * 4)
        task = subscriber.give("use it up")
        subscriber.wait(lambda: task.status is TaskState.PARKED, "the task is parked")
        assert 7000 < broker.client.ttl(keys.account("claude", "limit")) <= 7200, "not until the time that it told"
        assert len(subscriber.received(task.id)) == 1
        task.cancel()
        home.clear()

    def test_who_has_no_login_is_asked_for_it(self, agent: Hosted, shared_node: Node, torch: Torch) -> None:
        home = LoggedOut(agent.home.folder.with_name("logged-out"), agent.llm, path=PATH)
        stranger = Hosted(home, shared_node, torch, "developer-3")
        stranger.wait(lambda: stranger.worker.agent_state is AgentState.LOGIN, "it wants a login")
        assert "Select login method" in stranger.worker.screen()
        task = stranger.give("wait for it")
        assert "'torch-tasks attach developer-3' and log in" in str(task.record().waits)
        task.cancel()
        home.clear()
