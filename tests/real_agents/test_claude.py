"""Claude Code as an agent of the fleet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.llm.steps import Call, Fail, Text
from home import Claude
from hosted import Hosted
from nodes import Broker, Node
from promises import WithAccounts
from prompts import ODD_PROMPTS

from torch_tasks import TaskState, Torch, keys
from torch_tasks.client import Task

pytestmark = pytest.mark.slow


class Newcomer(Claude):
    """Somebody who has met none of its dialogs but the first, for which it wants its makers' network."""

    def settle(self) -> None:
        self.file(".claude.json", {"hasCompletedOnboarding": True})


class Subscriber(Newcomer):
    """Somebody with a login instead of a key."""

    @property
    def variables(self) -> dict[str, str]:
        return {**super().variables, "ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": self.key}


class TestClaude(WithAccounts):
    """What all keep, and what is special here."""

    home = Newcomer
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

    def test_the_persons_settings_are_left_alone(self, agent: Hosted) -> None:
        known = json.loads((agent.home.folder / ".claude.json").read_text())
        assert known["customApiKeyResponses"]["approved"] == [agent.home.key]
        assert "hooks" not in known
        assert not list(agent.home.folder.glob(".claude/settings*.json"))

    def test_a_prompt_with_tabs_lies_in_a_file(self, agent: Hosted) -> None:
        [tabs] = [odd.prompt for odd in ODD_PROMPTS if odd.name == "tab"]
        assert agent.do(tabs, id="tabs").succeeded
        [received] = agent.received("tabs")
        file = received.rpartition("tabs and all: ")[2].partition(" ·")[0]
        assert Path(file).read_text() == tabs

    def test_a_question_is_answered_in_words(self, agent: Hosted) -> None:
        options = [{"label": "red", "description": "warm"}, {"label": "blue", "description": "cold"}]
        asked = {"question": "Which colour?", "header": "Colour", "multiSelect": False, "options": options}
        agent.llm.on("paint it", Call("AskUserQuestion", {"questions": [asked]}), Text("Painted."))
        task = agent.give("paint it")
        agent.wait(lambda: task.record().question, "the task waits for an answer")
        task.answer("a shade of green")
        assert task.result(timeout=120).answer == "Painted."
        assert "a shade of green" in agent.requests(task.id)[-1].tool_results[-1]

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
        home = Subscriber(agent.home.folder.with_name("subscriber"), agent.llm)
        subscriber = Hosted(home, shared_node, torch, "developer-2")
        agent.llm.on("use it up", *[Fail("usage_limit", resets_in=7200)] * 4)
        task = subscriber.give("use it up")
        subscriber.wait(lambda: task.status is TaskState.PARKED, "the task is parked")
        assert 7000 < broker.client.ttl(keys.account("claude", "limit")) <= 7200, "not until the time that it told"
        assert len(subscriber.received(task.id)) == 1
        task.cancel()
        home.clear()
