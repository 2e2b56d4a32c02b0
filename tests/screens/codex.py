"""What Codex is led through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.certify.fake_model.steps import Await, Fail, Text

if TYPE_CHECKING:
    from screens.record import Stage


def play(stage: Stage) -> None:
    """Record its screens."""
    stage.start()
    llm, pane = stage.llm, stage.pane
    stage.wait_ready()
    stage.save("ready", AgentState.READY, shows="? for shortcuts")

    pane.paste("somebody is typing\nhere")
    stage.save("draft", AgentState.READY, shows="somebody is typing", composer="somebody is typing\nhere")
    pane.press(*["C-u"] * 4)
    pane.paste("a long paste\n" * 100)
    stage.save("draft-paste", AgentState.READY, shows="[Pasted Content", composer="[Pasted Content 1300 chars]")
    pane.press(*["C-u"] * 4)

    pane.paste("\n".join(f"line {number} of thirty" for number in range(1, 31)))
    lines = "\n".join(f"line {number} of thirty" for number in range(1, 31))
    stage.save("draft-tall", AgentState.READY, shows="line 30 of thirty", composer=lines)
    pane.press(*["C-u"] * 70)

    llm.on("hold", Text("part one. "), Await("answer"), Text("part two."))
    stage.send("please hold")
    stage.save("streaming", AgentState.WORKING, shows="part one.")
    pane.paste("a draft")
    stage.save("streaming-draft", AgentState.WORKING, shows="a draft", composer="a draft")
    pane.press("C-u")
    llm.release("answer")
    stage.save("answered", AgentState.READY, shows="Worked for")

    llm.on("use the tool", stage.home.shell("touch x"), Text("used"))
    stage.send("use the tool")
    asked = "Would you like to run the following command?"
    choices = (
        "Yes, proceed",
        "Yes, and don't ask again for commands that start with `touch x`",
        "No, and tell Codex what to do differently",
    )
    stage.save("permission", AgentState.WAITING, shows=asked, composer=None, question=asked, choices=choices)
    pane.press("Escape")
    stage.save("interrupted", AgentState.READY, shows="Conversation interrupted")

    llm.on("all of it", *[Fail("usage_limit", resets_in=7200)] * 3)
    stage.send("all of it")
    stage.save("approaching-limit", AgentState.WAITING, shows="Approaching rate limits", composer=None)
    pane.press("Escape")
    stage.save("limit", AgentState.READY, shows="hit your usage limit")
