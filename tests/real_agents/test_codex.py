"""Codex as an agent of the fleet, through the server beside its program."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import psutil
import pytest
from hosted import Hosted
from nodes import Broker
from promises import WithAccounts, WithTorchTools

from torch_tasks import TaskState, keys
from torch_tasks.client import Task
from torch_tasks.model.task import Question
from torch_tasks.state_folder import PROGRAM
from torch_tasks.workers.certify.fake_model.steps import Await, Call, Fail, Text
from torch_tasks.workers.certify.homes import CodexHome

pytestmark = pytest.mark.slow


class Newcomer(CodexHome):
    """A user who has trusted no folder yet."""

    def settle(self) -> None:
        super().settle()
        self.config = self.folder / ".codex/config.toml"
        self.config.write_text(self.config.read_text().partition("[projects")[0])


class WithCodex(WithTorchTools, WithAccounts):
    """What is the same both ways."""

    briefed_in = "input"
    torch_tool = "mcp__torch.{}"
    shell_tool = "Bash"
    allow_choice = "Yes, proceed"
    large_lines = 900

    def check_denied(self, agent: Hosted, task: Task) -> None:
        assert task.result(timeout=120).answer == "Tried."

    def leave(self, agent: Hosted) -> None:
        """A turn goes on for a moment after its hook, and the key only interrupts it then."""
        before, [key] = agent.program(), agent.home.exit_keys
        agent.type_until(lambda: agent.program() != before, key)

    def test_the_persons_settings_are_left_alone(self, agent: Hosted) -> None:
        settings = (agent.home.folder / ".codex/config.toml").read_text()
        assert "hooks" not in settings
        assert "trust_level" not in settings, "its folder is trusted by this agent alone"

    def test_the_folder_may_be_written_although_nobody_was_asked(self, agent: Hosted) -> None:
        agent.llm.on("write here", Call("exec_command", {"cmd": "touch written && echo made-$((6 * 7))"}), Text("Yes."))
        task = agent.give("write here")
        assert task.result(timeout=120).answer == "Yes."
        assert "made-42" in agent.requests(task.id)[-1].tool_results[-1]
        assert (agent.home.work / "written").exists()

    def test_a_login_that_is_renewed_in_the_box_or_outside_is_renewed_for_all(self, agent: Hosted) -> None:
        users = agent.home.file(".codex/auth.json", {"OPENAI_API_KEY": "sk-outside"})
        own = agent.outside(users)
        agent.wait(lambda: own.exists() and "sk-outside" in own.read_text(), "its program has the login")
        renewed = agent.do("renew it", check="echo sk-in-the-box | codex login --with-api-key")
        assert renewed.succeeded, renewed.error  # it renames a new file over the old one
        agent.wait(lambda: "sk-in-the-box" in users.read_text(), "its user has the renewed login")
        users.unlink()
        agent.wait(lambda: not own.exists(), "its user has logged out")

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

    def test_what_its_person_chose_for_later_ends_with_the_task(self, agent: Hosted) -> None:
        def question(task: Task) -> Question | None:
            now = task.record().question
            return now if now and now.lasting else None

        rules = agent.outside(agent.home.folder / ".codex/rules/default.rules")
        for name in ("at-first", "again"):
            agent.llm.on(f"make it {name}", agent.home.shell("touch for-later"), Await(name), Text("Made."))
            task = agent.give(f"make it {name}")
            agent.wait(partial(question, task), "it asks, with a choice for later")
            assert not rules.exists()
            asked = question(task)
            assert asked
            choice = asked.lasting[-1]
            assert "commands that start with" in asked.choices[choice - 1]
            task.answer(str(choice))
            agent.wait(partial(agent.llm.holding, name), "it goes on")
            assert "touch" in rules.read_text()
            agent.llm.release(name)
            assert task.result(timeout=120).answer == "Made."

    def test_compaction_is_waited_for(self, agent: Hosted) -> None:
        assert agent.do("begin").succeeded  # in a conversation without a turn there is nothing to summarize
        agent.llm.on("much more", Text("It fits now."))

        def compact() -> None:  # refused while the turn before is not quite over
            agent.worker.tmux("send-keys", "/compact")
            agent.wait(lambda: "summarize conversation" in agent.worker.screen(), "its menu shows the command")
            agent.worker.tmux("send-keys", "Enter")

        def begun() -> bool:
            return any(request.side == "compaction" for request in agent.llm.requests(agent.home.key))

        agent.try_until(begun, compact, "/compact")
        assert agent.do("much more").answer == "It fits now."

    def test_a_usage_limit_parks_the_task_until_it_ends(self, agent: Hosted, broker: Broker) -> None:
        agent.llm.on("use it up", *[Fail("usage_limit", resets_in=7200)] * 4)
        task = agent.give("use it up")
        agent.wait(lambda: task.status is TaskState.PARKED, "the task is parked")
        assert 7000 < broker.client.ttl(keys.account("codex", "limit")) <= 7200, "not until the time that it told"
        assert len(agent.received(task.id)) == 1
        task.cancel()

        # It is told beforehand to offer no model that costs less.
        agent.worker.kill()
        broker.client.delete(keys.account("codex", "limit"))
        agent.host()
        assert agent.do("go on with it", id="go-on").succeeded
        assert agent.requests("go-on")[0].model == "fake-model"


class TestCodex(WithCodex):
    """Its prompts and answers go through the server beside it."""

    home = Newcomer

    def servers(self, agent: Hosted) -> list[psutil.Process]:
        """The servers that run, each by the process that does the work."""
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "codex"
            and process.info["cmdline"]  # a killed one has none until its parent has noticed
            and f"unix://{agent.worker.folder / PROGRAM}/door" in process.info["cmdline"]
            and "app-server" in process.info["cmdline"]
        ]

    def test_prompts_and_answers_go_through_its_server(self, agent: Hosted) -> None:
        task = agent.give("by the door")
        assert task.result(timeout=120).evidence[0].detail == "app server: the turn is over"
        assert any(note.startswith("submitted: given to its server") for note in agent.notes(task)), agent.notes(task)
        assert len(self.servers(agent)) == 1

    def test_a_person_in_the_pane_is_left_alone(self, agent: Hosted) -> None:
        """A prompt goes past the composer, and need not wait."""
        agent.worker.tmux("send-keys", "-l", "a person types")
        agent.wait(lambda: "a person types" in agent.worker.screen(), "the person's words are drawn")
        assert agent.do("meanwhile").succeeded
        assert "a person types" in agent.worker.screen()
        agent.type_until(lambda: "a person types" not in agent.worker.screen(), "C-u")

    def test_a_person_sees_the_prompt_and_may_answer_in_the_pane(self, agent: Hosted) -> None:
        agent.llm.on("make three", agent.home.shell("touch three"), Text("Made."))
        task = agent.give("make three")
        agent.wait(lambda: "Would you like to run" in agent.worker.screen(), "the dialog is drawn")
        assert "make three" in agent.worker.screen()
        agent.wait(lambda: task.record().question, "the task waits for the permission")
        agent.worker.tmux("send-keys", "y")
        assert task.result(timeout=120).answer == "Made."

    def test_a_conversation_that_a_person_began_gets_its_prompts_typed(self, agent: Hosted) -> None:
        def begin() -> None:
            agent.worker.tmux("send-keys", "-l", "/new")
            agent.wait(lambda: "start a new chat" in agent.worker.screen(), "its menu shows the command")
            agent.worker.tmux("send-keys", "Enter")

        assert agent.do("before the new one").succeeded
        # The program refuses it until it has heard of the end of the turn, too.
        agent.try_until(lambda: "before the new one" not in agent.worker.screen(), begin, "/new")
        task = agent.give("into the new one", id="new-one")
        assert task.result(timeout=120).succeeded
        assert "into the new one" in agent.worker.screen()
        assert len(agent.received(task.id)) == 1
        assert "before the new one" not in str(agent.requests(task.id)[0].body)
        before = agent.worker.pane()
        self.leave(agent)
        agent.await_new_program(before)

    def kill_server(self, agent: Hosted) -> None:
        before = agent.worker.pane()
        for server in self.servers(agent):
            server.kill()
        agent.await_new_program(before)

    @pytest.fixture
    def all_ends_with_one_server(self, agent: Hosted) -> Iterator[None]:
        yield
        agent.wait(lambda: len(self.servers(agent)) == 1, "one server runs, and no former one")

    @pytest.mark.usefixtures("all_ends_with_one_server")
    def test_a_server_that_is_killed_at_rest_comes_back_with_a_new_program(self, agent: Hosted) -> None:
        assert agent.do("before the kill").succeeded
        self.kill_server(agent)
        task = agent.give("after the kill")
        assert task.result(timeout=120).succeeded
        assert len(agent.received(task.id)) == 1

    @pytest.mark.usefixtures("all_ends_with_one_server")
    def test_a_server_that_is_killed_in_mid_turn_has_a_new_one_go_on(self, agent: Hosted) -> None:
        agent.llm.on("cut off by its server", Text("Begun, "), Await("cut-by-server"))
        agent.llm.on("Go on with the task", Text("All of it."))
        task = agent.give("cut off by its server")
        agent.wait(lambda: agent.llm.holding("cut-by-server"), "the model works")
        self.kill_server(agent)
        result = task.result(timeout=120)
        assert (result.answer, result.attempts) == ("All of it.", 1)
        first, second = agent.received(task.id)
        assert first.startswith("cut off by its server")
        assert "Go on with the task" in second

    @pytest.mark.usefixtures("all_ends_with_one_server")
    def test_a_server_that_is_killed_while_it_asks_has_a_new_one_go_on(self, agent: Hosted) -> None:
        agent.llm.on("ask and die", agent.home.shell("touch four"), Text("Never said."))
        agent.llm.on("Go on with the task", Text("Went on."))
        task = agent.give("ask and die")
        agent.wait(lambda: task.record().question, "the task waits for the permission")
        self.kill_server(agent)
        assert task.result(timeout=120).answer == "Went on."
        assert len(agent.received(task.id)) == 2
        assert not (agent.home.work / "four").exists()
