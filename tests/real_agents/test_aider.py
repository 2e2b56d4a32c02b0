"""aider as an agent of the fleet."""

from __future__ import annotations

import pytest
from hosted import Hosted
from promises import Promises

from torch_tasks.workers.certify.fake_model.steps import Fail
from torch_tasks.workers.certify.homes import AiderHome

pytestmark = pytest.mark.slow


class Chooser(AiderHome):
    """A user who has named the model in a configuration of Torch's."""

    @property
    def variables(self) -> dict[str, str]:
        return {**super().variables, "TORCH_CONFIG_DIR": str(self.folder / "config")}

    def settle(self) -> None:
        super().settle()
        self.file("config/agents/aider.toml", 'base = "aider"\nmodel = "openai/fake-model"\n')


class TestAider(Promises):
    """What all keep, and what is special here."""

    home = Chooser
    briefed_in = "messages"
    counts = False
    odd_answer = "The answer:\n\n- *that* is all."  # what looks like a file would be one to it

    def test_an_edit_is_asked_for_and_given(self, agent: Hosted) -> None:
        agent.llm.on("make one", *agent.home.creates("one.txt"))
        task = agent.give("make one")
        agent.wait(lambda: task.record().question, "it asks")
        question = task.record().question
        assert question
        assert question.subject == "Create new file?"
        assert not (agent.home.work / "one.txt").exists()
        task.answer("1")
        assert task.result(timeout=120).succeeded
        assert (agent.home.work / "one.txt").read_text() == "made\n"
        denied = agent.do("make one two", permissions="deny")
        assert denied.succeeded

    def test_an_error_is_told(self, agent: Hosted) -> None:
        agent.llm.on("no key", *[Fail("unauthorized")] * 9)
        failed = agent.do("no key", max_retries=0)
        assert failed.error
        assert "AuthenticationError" in failed.error.message
