"""What aider is led through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.certify.fake_model.steps import Await, Text

if TYPE_CHECKING:
    from screens.record import Stage


def play(stage: Stage) -> None:
    """Record its screens."""
    stage.home.file("work/.aider.conf.yml", "model: openai/fake-model\n")
    stage.start()
    llm, pane = stage.llm, stage.pane
    stage.wait_ready()
    stage.save("ready", AgentState.READY, shows="Aider v")
    pane.paste("somebody is typing\nhere")
    stage.save("draft", AgentState.READY, shows="somebody is typing", composer="here")
    pane.press(*["C-u", "BSpace"] * 4)
    llm.on("hold", Await("begin"), Text("part one. "), Await("answer"), Text("part two."))
    stage.send("please hold")
    stage.save("waiting", AgentState.WORKING, shows="Waiting for", composer=None)
    llm.release("begin")
    llm.release("answer")
    stage.save("answered", AgentState.READY, shows="part two.")
    llm.on("make it", *stage.home.creates("one.txt"))
    stage.send("make it")
    asked = "Create new file? (Y)es/(N)o [Yes]"
    stage.save(
        "question", AgentState.WAITING, shows="Create new file?", composer=None, question=asked, choices=("Yes", "No")
    )
