"""What Claude Code is led through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from waiting import until

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.certify.fake_model.steps import Await, Call, Fail, Text
from torch_tasks.workers.certify.homes import ClaudeHome

if TYPE_CHECKING:
    from screens.record import Stage

COLOUR: dict[str, Any] = {
    "question": "Which colour?",
    "header": "Colour",
    "multiSelect": False,
    "options": [{"label": "red", "description": "warm"}, {"label": "blue", "description": "cold"}],
}
ROOMS: dict[str, Any] = {
    "question": "Which rooms?",
    "header": "Rooms",
    "multiSelect": True,
    "options": [{"label": "kitchen", "description": "small"}, {"label": "hall", "description": "large"}],
}
LAYOUT: dict[str, Any] = {
    "question": "Where does the menu stand?",
    "header": "Layout",
    "multiSelect": False,
    "options": [
        {"label": "side", "description": "at the left", "preview": "+--+-----+\n|  |     |\n+--+-----+"},
        {"label": "top", "description": "above all", "preview": "+--------+\n+--------+\n|        |"},
    ],
}


def play(stage: Stage) -> None:
    """Record its screens."""
    stage.start(ANTHROPIC_API_KEY="", CLAUDE_CONFIG_DIR=str(stage.home.folder / "without-key"))
    llm = stage.llm
    stage.save("theme", AgentState.WAITING, shows="Choose the text style", composer=None)
    stage.pane.press("Enter")
    stage.save("login-method", AgentState.LOGIN, shows="Select login method", composer=None)
    stage.pane.end()

    stage.start()
    pane = stage.pane
    until(lambda: "Choose the text style" in pane.screen(), "the theme is asked for", 60)
    pane.press("1")
    stage.save("api-key", AgentState.WAITING, shows="Do you want to use this API key?", composer=None)
    pane.press("1")
    stage.save("security-notes", AgentState.WAITING, shows="Press Enter to continue", composer=None)
    pane.press("Enter")
    stage.save("trust", AgentState.WAITING, shows="Yes, I trust this folder", composer=None)
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

    llm.on("hold", Text("part one. "), Await("answer"), Text("part two."))
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
    choices = ("Yes", "Yes, allow all edits during this session", "No")
    asked = "Do you want to create y.txt?"
    stage.save("permission-edit", AgentState.WAITING, shows=asked, composer=None, question=asked, choices=choices)
    pane.press("Escape")

    llm.on("ask me", Call("AskUserQuestion", {"questions": [COLOUR, ROOMS, LAYOUT]}), Text("chosen"))
    stage.send("ask me")
    _save_question(stage, "question", "Which colour?", ("red", "blue", "Type something."))
    pane.press("1")
    _save_question(stage, "question-several", "Which rooms?", ("kitchen", "hall", "Type something"))
    pane.press("Tab")
    _save_question(stage, "question-previews", LAYOUT["question"], ("side", "top"))
    pane.press("Enter")
    review = "Review your answers ⚠ You have not answered all questions ● Which colour? → red"
    review += f" ● {LAYOUT['question']} → side Ready to submit your answers?"
    _save_question(stage, "review", review, ("Submit answers", "Cancel"), shows="Ready to submit")
    pane.press("Escape")

    llm.on("plan it", Call("EnterPlanMode"), Await("plan"), Call("ExitPlanMode"), Text("planned"))
    stage.send("plan it")
    until(lambda: llm.holding("plan"), "it is in plan mode", 60)
    assert isinstance(stage.home, ClaudeHome)
    stage.home.file(str(stage.home.plan), "# The plan\n\n1. Think\n2. Do it\n")
    llm.release("plan")
    asked = "Claude has written up a plan and is ready to execute. Would you like to proceed?"
    choices = ("Yes, and use auto mode", "Yes, manually approve edits", "Tell Claude what to change")
    _save_question(stage, "plan", asked, choices, shows=asked)
    pane.press("Escape")

    llm.on("flaky", Fail("rate_limit", retry_after=20), Text("at last"))
    stage.send("flaky")
    stage.save("retrying", AgentState.WORKING, shows="Retrying in")
    pane.press("Escape")


def _save_question(stage: Stage, name: str, asked: str, choices: tuple[str, ...], shows: str = "") -> None:
    stage.save(name, AgentState.WAITING, shows=shows or asked, composer=None, question=asked, choices=choices)
