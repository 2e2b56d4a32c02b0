"""The fake coding agent in a real pane: how it begins and ends, what goes wrong with its input, and what it tells."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from appended import whole_lines
from fake_cli_parts import FOREVER, Played, turn
from fake_cli_parts import folder as folder
from fake_cli_parts import play as play
from fake_cli_parts import start as start
from fakes.cli import steps as do
from fakes.cli.scenario import Events, Faults, Looks, Scenario, Start, Ways
from fakes.cli.scene import POINTER
from waiting import until

# ── the beginning and the end ────────────────────────────────────────────────────────────────────────────────────


def test_a_newcomer_answers_dialogs_first(play: Callable[..., Played]) -> None:
    played = play(Scenario(start=Start(dialogs=("theme", "api_key", "notes", "trust"))), ready=False)
    for seen in ("Choose the text style", f"{POINTER} 2. No (recommended)", "Press Enter to continue"):
        played.sees(seen)
        played.press("Enter")
    played.sees("Do you trust the files", f"{POINTER} 1. Yes, proceed")
    played.write("a prompt too early")
    played.press("Enter")
    played.recorded("ready")
    played.sees("Not logged in · Run /login")
    assert played.cli.keys() == ["Enter", "Enter", "Enter", "a prompt too early", "Enter"]
    played.prompt("hello")
    played.sees("Not logged in · Please run /login")


def test_who_does_not_trust_the_folder_leaves(play: Callable[..., Played]) -> None:
    played = play(Scenario(start=Start(dialogs=("trust",))), ready=False)
    played.sees("Do you trust the files")
    played.press("2")
    assert played.exit_code() == 1


def test_what_is_typed_before_it_is_ready_is_lost(play: Callable[..., Played]) -> None:
    played = play(Scenario(start=Start(ready_after=1.5, bracketed_paste=False)), ready=False)
    played.pane.paste("too early")
    played.recorded("ready")
    played.pane.paste("one\ntwo")
    played.press("Enter")
    assert played.recorded("submitted")["text"] == "one\ntwo"
    assert "".join(record["data"] for record in played.cli.records("lost")) == "too early"
    assert played.cli.bytes() == b"too earlyone\ntwo\r", "no frames"


def test_it_ends_when_asked_twice(play: Callable[..., Played]) -> None:
    played = play(Scenario(ways=Ways(ctrl_c_seconds=60)))
    played.write("something")
    played.press("C-c", "C-c")
    played.footer("Press Ctrl-C again to exit")
    played.press("C-c")
    assert played.exit_code() == 0
    assert played.recorded("exit")["how"] == "prompt_input_exit"


def test_it_crashes_in_the_middle_of_a_turn(play: Callable[..., Played]) -> None:
    played = play(Scenario(default=turn(do.Say("half of"), do.Crash(7, "panic: out of luck"))))
    played.prompt("go")
    assert played.exit_code() == 7
    assert "panic: out of luck" in played.pane.screen()


def test_a_signal_ends_it(play: Callable[..., Played]) -> None:
    played = play(Scenario(default=turn(do.Crash(-signal.SIGKILL))))
    played.prompt("go")
    until(lambda: played.look().dead, "it has ended")
    assert played.look().dead_status is None
    assert played.recorded("exit")["code"] == -signal.SIGKILL


def test_it_may_leave_a_shell_in_its_pane(play: Callable[..., Played], folder: Path) -> None:
    played = play(Scenario(default=turn(do.Shell())))
    played.prompt("go")
    until(lambda: played.look().command == "bash", "a shell is there")
    played.pane.paste(f"echo $((6 * 7)) > {folder}/ran")
    played.pane.press("Enter")
    until(lambda: (folder / "ran").exists() and (folder / "ran").read_text(), "the next prompt ran as a command")
    assert (folder / "ran").read_text() == "42\n"


def test_it_hangs(play: Callable[..., Played]) -> None:
    played = play(Scenario(default=turn(do.Hang())))
    played.prompt("go")
    before = played.cli.bytes()
    played.pane.paste("more")
    with pytest.raises(AssertionError, match="it reads"):
        until(lambda: played.cli.bytes() != before, "it reads", 0.5)


# ── faults of the input ──────────────────────────────────────────────────────────────────────────────────────────


def test_enters_are_swallowed(play: Callable[..., Played]) -> None:
    played = play(Scenario(faults=Faults(swallow_enters=2, prompts=1)))
    played.write("hello")
    played.press("Enter", "Enter")
    played.recorded("swallowed", 2)
    assert played.cli.submitted() == []
    played.sees("│ > hello")
    played.press("Enter")
    played.recorded("submitted")
    played.prompt("the next one")
    assert played.cli.submitted() == ["hello", "the next one"]


def test_an_enter_too_soon_after_a_paste_is_swallowed(play: Callable[..., Played]) -> None:
    played = play(Scenario(faults=Faults(deaf_after_paste=1.0, swallowed_breaks=True)))
    played.pane.paste("hello")
    played.pane.press("Enter")
    played.recorded("swallowed")
    until(lambda: played.cli.records("submitted") or played.pane.press("Enter"), "a later one is not")
    assert played.recorded("submitted")["at"] - played.recorded("bytes")["at"] >= 1
    assert set(played.cli.submitted()[0].removeprefix("hello")) == {"\n"}


def test_enter_is_acted_on_late(play: Callable[..., Played]) -> None:
    played = play(Scenario(faults=Faults(accept_after=0.5)))
    played.write("hello")
    played.press("Enter", "Enter")
    played.write("more")
    submitted = played.recorded("submitted")
    read = [record["at"] for record in played.cli.records("bytes") if record["data"].startswith("\r")]
    assert submitted["text"] == "hello"
    assert submitted["at"] - read[0] >= 0.5
    played.sees("│ > more")
    assert len(played.cli.submitted()) == 1


def test_what_changes_is_seen_late(play: Callable[..., Played]) -> None:
    played = play(Scenario(faults=Faults(draw_after=0.5)))
    played.write("hello")
    played.sees("│ > hello")
    assert time.monotonic() - played.recorded("bytes")["at"] >= 0.5


def test_pastes_are_dropped_and_cut(play: Callable[..., Played]) -> None:
    played = play(Scenario(faults=Faults(drop_pastes=1, cut_pastes=1, cut_at=3)))
    for text in ("dropped", "cut off", " whole"):
        played.write(text)
    played.press("Enter")
    assert played.recorded("submitted")["text"] == "cut whole"
    assert played.recorded("dropped")["characters"] == len("dropped")
    assert played.recorded("cut")["characters"] == len("cut off")


def test_a_prompt_is_taken_twice_or_not_at_all(play: Callable[..., Played]) -> None:
    played = play(Scenario(faults=Faults(double_accept=True)))
    played.prompt("twice")
    played.recorded("turn_over", 2)
    assert [(record["text"], record["how"]) for record in played.cli.records("submitted")] == [
        ("twice", "enter"),
        ("twice", "doubled"),
    ]
    played.cli.play(Scenario(faults=Faults(lose_prompts=1)))
    played.write("lost")
    played.press("Enter")
    assert played.recorded("lost_prompt")["text"] == "lost"
    played.prompt("found")
    assert played.cli.submitted() == ["twice", "twice", "found"]


def test_a_dialog_comes_between_the_paste_and_enter(play: Callable[..., Played]) -> None:
    played = play(Scenario(faults=Faults(dialog_after_paste="update")))
    played.write("hello")
    played.sees("Update available!")
    played.press("Enter")
    assert played.recorded("chosen")["text"] == "Update now"
    assert played.cli.submitted() == []
    played.sees("│ > hello")


def test_enter_takes_what_was_only_suggested(play: Callable[..., Played]) -> None:
    played = play(Scenario(looks=Looks(ghost="delete everything"), ways=Ways(enter_takes_ghost=True)))
    played.press("Enter")
    record = played.recorded("submitted")
    assert (record["text"], record["how"]) == ("delete everything", "ghost")


# ── what it tells ────────────────────────────────────────────────────────────────────────────────────────────────

TOLD = ["SessionStart", "UserPromptSubmit", "PreToolUse", "PostToolUse", "PermissionRequest", "Stop", "StopFailure"]
TOLD += ["PreCompact", "PostCompact", "Notification", "SessionEnd"]


@pytest.fixture
def told(folder: Path) -> Callable[[], list[dict[str, Any]]]:
    """Installs hooks for all events; returns what they were told."""
    file = folder / "told"
    command = f'told=$(cat); printf "%s\\n" "$told" >> {shlex.quote(str(file))}'
    hooks = {event: [{"hooks": [{"type": "command", "command": command}]}] for event in TOLD}
    (folder / "hooks.json").write_text(json.dumps({"hooks": hooks}))
    return lambda: [json.loads(line) for line in whole_lines(file)]


def test_hooks_are_told_what_happens(play: Callable[..., Played], told: Callable[[], list[dict[str, Any]]]) -> None:
    steps = (do.Compact(0), do.Permission(), do.Run("true"), do.Say("all\ndone"))
    played = play(Scenario(default=turn(*steps), events=Events(permission_notice=0, idle_notice=0)))

    def hears(*names: str) -> None:
        """These are the next events; those that are told side by side in any order."""
        until(lambda: len(told()) >= heard + len(names), f"told: {names}")
        assert sorted(event["hook_event_name"] for event in told()[heard:]) == sorted(names)

    heard = 0
    hears("SessionStart")
    heard = 1
    played.prompt("it's\n$this")
    hears("UserPromptSubmit", "PreCompact", "PostCompact", "PermissionRequest", "Notification")
    heard = 6
    played.press("1")
    hears("PreToolUse", "PostToolUse", "Stop", "Notification")
    heard = 10
    played.cli.play(Scenario(default=turn(do.Limit())))
    played.prompt("limit")
    hears("UserPromptSubmit", "StopFailure")
    played.recorded("turn_over", 2)
    heard = 12
    played.press("C-c", "C-c")
    until(lambda: played.look().dead, "it has ended")
    hears("SessionEnd")
    in_turn = ("UserPromptSubmit", "PreCompact", "PostCompact", "PreToolUse", "PostToolUse", "Stop")
    names = [event["hook_event_name"] for event in told()[:10]]
    assert [name for name in names if name in in_turn] == list(in_turn)
    by_name = {event["hook_event_name"]: event for event in reversed(told())}
    assert by_name["UserPromptSubmit"]["prompt"] == "it's\n$this"
    assert by_name["PermissionRequest"]["tool_input"] == {"command": "touch a.txt"}
    assert by_name["Stop"]["last_assistant_message"] == "all\ndone"
    assert by_name["StopFailure"]["error"] == "rate_limit"
    assert {event["session_id"] for event in told()} == {told()[0]["session_id"]}


def test_nothing_is_told_of_an_interrupt_or_a_silent_denial(
    play: Callable[..., Played], told: Callable[[], list[dict[str, Any]]]
) -> None:
    loud = turn(do.Permission(silent=False, denied=(do.Say("I must not"),)), match="loud")
    played = play(Scenario(turns=(loud, turn(do.Permission(), match="deny")), default=turn(FOREVER)))
    played.prompt("on and on")
    played.press("Escape")
    played.recorded("interrupted")
    for number, prompt in enumerate(("deny", "loud"), 1):
        played.prompt(prompt)
        played.recorded("dialog", number)
        played.press("Escape")
        played.recorded("turn_over", number)
    stops = [event for event in told() if event["hook_event_name"].startswith("Stop")]
    assert [event["last_assistant_message"] for event in stops] == ["I must not"]


def test_events_are_left_out_told_late_and_told_twice(
    play: Callable[..., Played], told: Callable[[], list[dict[str, Any]]]
) -> None:
    events = Events(off=("SessionStart",), late={"UserPromptSubmit": 1.5}, twice=("Stop",))
    played = play(Scenario(default=turn(), events=events))
    played.prompt("hello")
    played.recorded("turn_over")
    until(lambda: len(told()) == 3, "three events were told")
    assert [event["hook_event_name"] for event in told()] == ["Stop", "Stop", "UserPromptSubmit"]


def test_a_hook_that_hangs_or_fails_does_not_hold_the_agent(play: Callable[..., Played], folder: Path) -> None:
    groups = {"Stop": "sleep 600", "UserPromptSubmit": "exit 3"}
    hooks = {event: [{"hooks": [{"type": "command", "command": command}]}] for event, command in groups.items()}
    (folder / "hooks.json").write_text(json.dumps({"hooks": hooks}))
    played = play(Scenario(default=turn(), events=Events(patience=0.3)))
    played.prompt("hello")
    played.recorded("turn_over")
    assert [(record["event"], record["code"]) for record in played.cli.records("hook")] == [("UserPromptSubmit", 3)]
    played.prompt("again")
    (hanging, *_) = psutil.Process(played.look().pid).children()
    played.recorded("turn_over", 2)
    played.press("C-c", "C-c")
    until(lambda: not hanging.is_running() or hanging.status() == psutil.STATUS_ZOMBIE, "its hooks end with it")


def test_it_may_write_the_files_that_claude_writes(play: Callable[..., Played], folder: Path) -> None:
    scenario = Scenario(default=turn(do.Permission(), do.Say("done")), events=Events(claude_files=True))
    played = play(scenario, env={"HOME": str(folder)})
    state = folder / ".claude" / "sessions" / f"{played.look().pid}.json"

    def is_now(status: str, **more: str) -> bool:
        try:
            facts = json.loads(state.read_text())
        except (FileNotFoundError, ValueError):
            return False
        return bool(facts["status"] == status and facts.get("waitingFor") == more.get("waiting_for"))

    until(lambda: is_now("idle"), "it is idle")
    played.prompt("hello")
    until(lambda: is_now("waiting", waiting_for="permission prompt"), "it asks")
    played.press("1")
    until(lambda: is_now("idle"), "it is idle again")
    session = json.loads(state.read_text())["sessionId"]
    transcript = folder / ".claude" / "projects" / str(folder).replace("/", "-") / f"{session}.jsonl"
    rows = [json.loads(row) for row in transcript.read_text().splitlines()]
    assert [row["type"] for row in rows] == ["user", "assistant", "system"]
    assert rows[0]["message"]["content"] == "hello"
    assert rows[1]["message"]["content"][0]["text"] == "done"
    played.press("C-c", "C-c")
    until(lambda: not state.exists(), "the state file goes with it")


def test_a_bad_scenario_is_named(play: Callable[..., Played]) -> None:
    played = play()
    (played.cli.folder / "scenario.json").write_text('{"faults": {"swallow": 1}}')
    os.utime(played.cli.folder / "scenario.json", (1, 1))
    played.pane.press("x")
    until(lambda: played.look().dead, "it has ended")
    assert "Faults has no swallow; it has prompts, swallow_enters" in played.pane.screen()
