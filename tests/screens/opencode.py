"""OpenCode's screens. Torch reads them only where its server says too little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waiting import until

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.certify.fake_model.steps import Await, Text

if TYPE_CHECKING:
    from screens.record import Stage


def play(stage: Stage) -> None:
    """Record its screens."""
    stage.start()
    llm, pane = stage.llm, stage.pane
    stage.wait_ready()
    stage.save("ready", AgentState.READY, shows="• OpenCode", composer=None)
    llm.on("hold", Text("part one. "), Await("answer"), Text("part two."))
    pane.paste("please hold")
    pane.press("Enter")
    stage.save("streaming", AgentState.WORKING, shows="esc interrupt", composer=None)
    llm.release("answer")
    until(lambda: "esc interrupt" not in pane.screen(), "the turn is over")
    stage.save("answered", AgentState.READY, shows="part two.", composer=None)
    llm.on("use the tool", stage.home.shell("touch x"), Text("used"))
    pane.paste("use the tool")
    pane.press("Enter")
    asked = "Permission required"
    stage.save("permission", AgentState.WAITING, shows=asked, composer=None, question=asked)
