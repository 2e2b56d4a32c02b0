"""What Claude Code is led through."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fakes.llm.steps import Call, Fail, Hold, Text

from torch_tasks.models import AgentState

if TYPE_CHECKING:
    from screens.record import Stage


def play(stage: Stage) -> None:
    """Record its screens."""
    stage.home.file(".claude.json", json.dumps({"hasCompletedOnboarding": True}))
    stage.start()
    llm, pane = stage.llm, stage.pane
    stage.save("trust", AgentState.WAITING, shows="Yes, I trust this folder", composer=None)
    pane.press("Enter")
    stage.save("api-key", AgentState.WAITING, shows="Do you want to use this API key?", composer=None)
    stage.wait_ready()
    stage.save("ready", AgentState.READY, shows="? for shortcuts")

    pane.paste("somebody is typing\nhere")
    stage.save("draft", AgentState.READY, shows="somebody is typing", composer="somebody is typing\nhere")
    pane.press(*["C-u"] * 4)
    pane.paste("a long paste\n" * 30)
    stage.save("draft-paste", AgentState.READY, shows="[Pasted text", composer="[Pasted text #1 +30 lines]")
    pane.press(*["C-u"] * 4)
    pane.press("!")
    stage.save("shell-mode", AgentState.UNKNOWN, shows="! for shell mode", composer=None)
    pane.press("BSpace")

    llm.on("hold", Text("part one. "), Hold("answer"), Text("part two."))
    stage.send("please hold")
    stage.save("streaming", AgentState.WORKING, shows="esc to interrupt")
    pane.paste("a draft")
    stage.save("streaming-draft", AgentState.WORKING, shows="a draft", composer="a draft")
    pane.press("C-u")
    llm.release("answer")
    stage.save("answered", AgentState.READY, shows="part one. part two.")

    llm.on("use the tool", Call("Bash", {"command": "touch x", "description": "Make x"}), Text("used"))
    stage.send("use the tool")
    yes_no = ("Yes", "Yes, and always allow access to work/ from this project", "No")
    asked = "Do you want to proceed?"
    stage.save("permission", AgentState.WAITING, shows=asked, composer=None, question=asked, choices=yes_no)
    pane.press("Escape")
    stage.save("interrupted", AgentState.READY, shows="Interrupted")

    file = {"file_path": str(stage.home.work / "y.txt"), "content": "hello\nworld\n"}
    llm.on("write the file", Call("Write", file), Text("written"))
    stage.send("write the file")
    choices = ("Yes", "Yes, allow all edits during this session (shift+tab)", "No")
    asked = "Do you want to create y.txt?"
    stage.save("permission-edit", AgentState.WAITING, shows=asked, composer=None, question=asked, choices=choices)
    pane.press("Escape")

    options = [{"label": "red", "description": "warm"}, {"label": "blue", "description": "cold"}]
    question = {"question": "Which colour?", "header": "Colour", "multiSelect": False, "options": options}
    llm.on("ask me", Call("AskUserQuestion", {"questions": [question]}), Text("chosen"))
    stage.send("ask me")
    stage.save(
        "question",
        AgentState.WAITING,
        shows="Which colour?",
        composer=None,
        question="Which colour?",
        choices=("red", "blue", "Type something."),
    )
    pane.press("Escape")

    llm.on("flaky", Fail("rate_limit", retry_after=20), Text("at last"))
    stage.send("flaky")
    stage.save("retrying", AgentState.WORKING, shows="Retrying in")
    pane.press("Escape")
