"""What the Gemini CLI is led through."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from waiting import until

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.certify.fake_model.steps import Await, Call, Fail, Text

if TYPE_CHECKING:
    from screens.record import Stage


def play(stage: Stage) -> None:
    """Record its screens."""
    shutil.rmtree(stage.home.folder / ".gemini")
    stage.start()
    llm, pane = stage.llm, stage.pane
    shown = "following folders being added"
    stage.save("folders", AgentState.READY, shows=shown, composer=None)
    pane.press("Enter")
    stage.save("login", AgentState.LOGIN, shows="How would you like to authenticate", composer=None)
    pane.press("Enter")
    stage.save("api-key", AgentState.LOGIN, shows="Enter Gemini API Key", composer=None)
    stage.wait_ready()
    stage.save("ready", AgentState.READY, shows="Type your message")

    pane.paste("somebody is typing\nhere")
    stage.save("draft", AgentState.READY, shows="somebody is typing", composer="somebody is typing\nhere")
    pane.press(*["C-u", "BSpace"] * 4)
    pane.paste("a long paste\n" * 30)
    stage.save("draft-paste", AgentState.READY, shows="[Pasted Text", composer="[Pasted Text: 31 lines]")
    pane.press(*["C-u", "BSpace"] * 4)

    llm.on("hold", Text("part one. "), Await("answer"), Text("part two."))
    stage.send("please hold")
    stage.save("streaming", AgentState.WORKING, shows="esc to cancel")
    pane.paste("a draft")
    stage.save("streaming-draft", AgentState.WORKING, shows="a draft", composer="a draft")
    pane.press("C-u")
    llm.release("answer")
    stage.save("answered", AgentState.READY, shows="part two.")

    llm.on("use the tool", stage.home.shell("touch x"), Text("used"))
    stage.send("use the tool")
    choices = ("Allow once", "Allow for this session", "No, suggest changes")
    asked = "Allow execution of [Shell]?"
    stage.save("permission", AgentState.WAITING, shows=asked, composer=None, question=asked, choices=choices)
    pane.press("Escape")
    stage.save("interrupted", AgentState.READY, shows="Request cancelled")

    llm.on("tell it", Text("\n".join(f"- row {number}" for number in range(120))))
    stage.send("tell it")
    stage.save("long-answer", AgentState.READY, shows="row 119")
    stage.send("use the tool")
    until(lambda: asked in pane.screen(), "it asks")
    pane.press("PageUp")
    pane.press("PageDown")  # as whoever looks does
    choices = ("Allow once", "Allow for this session", "No, suggest changes")
    stage.save("permission-scrollbar", AgentState.WAITING, shows="│█", composer=None, question=asked, choices=choices)
    pane.press("Escape")

    llm.on("write the file", Call("write_file", {"file_path": str(stage.home.work / "y"), "content": "hello\n"}))
    stage.send("write the file")
    choices = ("Allow once", "Allow for this session", "Modify with external editor", "No, suggest changes")
    asked = "Apply this change?"
    stage.save("permission-edit", AgentState.WAITING, shows=asked, composer=None, question=asked, choices=choices)
    pane.press("Escape")

    llm.on("limited", *[Fail("usage_limit")] * 9)
    stage.send("limited")
    stage.save("limited", AgentState.LIMITED, shows="Usage limit reached", composer=None)
