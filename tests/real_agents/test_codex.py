"""Codex as an agent of the fleet."""

from __future__ import annotations

import pytest
from hosted import Hosted
from nodes import Broker
from promises import WithAccounts

from torch_tasks import TaskState, keys
from torch_tasks.client import Task
from torch_tasks.workers.certify.fake_model.steps import Call, Fail, Text
from torch_tasks.workers.certify.homes import CodexHome

pytestmark = pytest.mark.slow


class Newcomer(CodexHome):
    """A user who has trusted no folder yet."""

    def settle(self) -> None:
        super().settle()
        self.config = self.folder / ".codex/config.toml"
        self.config.write_text(self.config.read_text().partition("[projects")[0])


class TestCodex(WithAccounts):
    """What all keep, and what is special here."""

    home = Newcomer
    briefed_in = "input"
    shell_tool = "Bash"
    allow_choice = "Yes, proceed"
    large_lines = 900

    def check_denied(self, agent: Hosted, task: Task) -> None:
        assert task.result(timeout=120).answer == "Tried."

    def test_the_persons_settings_are_left_alone(self, agent: Hosted) -> None:
        settings = (agent.home.folder / ".codex/config.toml").read_text()
        assert "hooks" not in settings
        assert "trust_level" not in settings, "its folder is trusted by this agent alone"

    def test_a_tool_is_used(self, agent: Hosted) -> None:
        agent.llm.on("look around", Call("exec_command", {"cmd": "echo seen-$((6 * 7))"}), Text("Seen."))
        task = agent.give("look around")
        assert task.result(timeout=120).answer == "Seen."
        assert "seen-42" in agent.requests(task.id)[-1].tool_results[-1]

    def test_a_patch_is_asked_for(self, agent: Hosted) -> None:
        patch = "*** Begin Patch\n*** Add File: .git/notes\n+hello\n*** End Patch\n"
        agent.llm.on("patch it", Call("exec_command", {"cmd": f"apply_patch <<'EOF'\n{patch}EOF\n"}), Text("Patched."))
        task = agent.give("patch it")
        agent.wait(lambda: (asked := task.record().question) and asked.choices, "the task waits for the permission")
        question = task.record().question
        assert question
        assert question.subject == f"apply_patch({patch.rstrip()})"
        assert question.choices[0] == self.allow_choice
        assert not (agent.home.work / ".git/notes").exists()
        task.answer("1")
        assert task.result(timeout=120).answer == "Patched."
        assert (agent.home.work / ".git/notes").read_text() == "hello\n"
        assert "Success. Updated the following files" in agent.requests(task.id)[-1].tool_results[-1]

    def test_compaction_is_waited_for(self, agent: Hosted) -> None:
        agent.llm.on("much more", Text("It fits now."))
        agent.worker.tmux("send-keys", "/compact")
        agent.wait(lambda: "summarize conversation" in agent.worker.screen(), "its menu shows the command")
        agent.worker.tmux("send-keys", "Enter")
        assert agent.do("much more").answer == "It fits now."
        assert any(request.side == "compaction" for request in agent.llm.requests(agent.home.key))

    def test_a_usage_limit_parks_the_task_until_it_ends(self, agent: Hosted, broker: Broker) -> None:
        agent.llm.on("use it up", *[Fail("usage_limit", resets_in=7200)] * 4)
        task = agent.give("use it up")
        agent.wait(lambda: task.status is TaskState.PARKED, "the task is parked")
        assert 7000 < broker.client.ttl(keys.account("codex", "limit")) <= 7200, "not until the time that it told"
        assert len(agent.received(task.id)) == 1
        task.cancel()

        # Then it offers a model that costs less.
        shown = agent.worker.folder / "transcript"
        agent.wait(lambda: "Approaching rate limits" in shown.read_text(errors="replace"), "it offers another model")
        agent.worker.kill()
        broker.client.delete(keys.account("codex", "limit"))
        agent.host()
        assert agent.do("go on with it", id="go-on").succeeded
        assert agent.requests("go-on")[0].model == "fake-model"
