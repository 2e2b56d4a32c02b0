"""The fake coding agent in a real pane: what it takes, what it shows, and what its turns do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fake_cli_parts import FOREVER, Played, turn
from fake_cli_parts import folder as folder
from fake_cli_parts import play as play
from fake_cli_parts import start as start
from fakes.cli import steps as do
from fakes.cli.scenario import Looks, Scenario, Ways
from fakes.cli.scene import POINTER
from tmux_parts import HOSTILE_LINES
from waiting import until

LITERALLY = Ways(bang_runs=False, slash_commands=False, backslash_continues=False)
THIRTY_LINES = "\n".join(f"line {number} it's `this` $line \\" for number in range(30))


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pasted_prompt_arrives_byte_for_byte(play: Callable[..., Played]) -> None:
    texts = [*HOSTILE_LINES, "two\nlines", THIRTY_LINES, "x" * 20_000, "\ttab \x1b[31mred\x07 end ", "! /not @run \\"]
    played = play(Scenario(default=turn(), ways=LITERALLY))
    for text in texts:
        played.prompt(text)
    assert played.cli.submitted() == texts
    framed = [f"\x1b[200~{text}\x1b[201~\r".encode() for text in texts]
    assert played.cli.bytes() == b"".join(framed)
    reads = [record["at"] for record in played.cli.records("bytes")]
    assert reads == sorted(reads)


def test_200_kb_arrive_whole(play: Callable[..., Played]) -> None:
    text = "\n".join(f"{number} é it's `this` $line" for number in range(9000))
    played = play()
    played.prompt(text)
    assert played.cli.submitted() == [text]


def test_line_ends_inside_a_paste_are_newlines(play: Callable[..., Played]) -> None:
    played = play()
    played.prompt("a\rb\nc\r\nd")
    assert played.cli.submitted() == ["a\nb\nc\n\nd"]


def test_what_a_terminal_cli_takes_as_its_own_never_reaches_the_model(play: Callable[..., Played]) -> None:
    played = play()
    for text in ("! rm -rf /", "/unknown words"):
        played.write(text)
        played.press("Enter")
    played.sees("! rm -rf /", "Unknown slash command: unknown")
    played.write("goes on\\")
    played.press("Enter")
    played.write("here")
    played.press("Enter")
    assert played.recorded("submitted")["text"] == "goes on\nhere"
    played.prompt("/etc/hosts is a file")
    assert played.cli.local() == ["! rm -rf /", "/unknown words"]
    assert [record["kind"] for record in played.cli.records("ran_locally", "command")] == ["ran_locally", "command"]


def test_keys_edit_the_text(play: Callable[..., Played]) -> None:
    played = play(Scenario(ways=Ways(strip="end", tab_blanks=4)))
    played.type("first words")
    played.press("C-j")
    played.type("second")
    played.press("C-u", "C-u", "C-w", "BSpace")
    played.type("!")
    played.write("\tend  ")
    played.press("Enter")
    assert played.recorded("submitted")["text"] == "first!    end"


# ── the screen ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_screen(play: Callable[..., Played]) -> None:
    played = play(Scenario(looks=Looks(ghost="Try: fix the tests")))
    lines = played.sees("? for shortcuts").splitlines()
    assert [line[:3] for line in lines[-4:]] == ["╭──", "│ >", "╰──", "  ?"]
    assert "Try: fix the tests" in lines[-3]
    look = played.look()
    assert (look.command, look.cursor_x, look.cursor_y) == ("fake-cli", 4, len(lines) - 3)
    assert played.title() == "✳ Fake Code"
    process = psutil.Process(look.pid)
    before = process.num_ctx_switches()
    with pytest.raises(AssertionError, match="it moves"):
        until(lambda: process.num_ctx_switches().voluntary > before.voluntary + 2, "it moves", 1)


def test_a_turn_on_the_screen(play: Callable[..., Played]) -> None:
    say = turn(do.Work(0.3), do.Say("First line.\nYou want {words}, 漢字.", 0.3), match="roof")
    played = play(Scenario(turns=(say,), default=turn(FOREVER)))
    played.prompt("repair the\n  house")
    played.sees("> repair the\n    house", "Working… (1s · esc to interrupt)")
    assert played.title() in ("⠂ repair the house", "⠐ repair the house")
    played.footer("esc to interrupt")
    played.write("and the roof")
    until(lambda: "│ > and the roof" in played.pane.screen().splitlines()[-2], "the footer's hints are gone")
    played.press("Enter")
    played.sees("\n> and the roof\n\n╭──")  # it waits
    played.press("Escape")
    played.sees("● First line.\n  You want and the roof, 漢字.")
    assert played.recorded("turn_over")["answer"] == "First line.\nYou want and the roof, 漢字."
    until(lambda: played.title() == "✳ repair the house", "the title is idle")
    played.footer("? for shortcuts")
    assert "Working" not in played.pane.screen()


def test_the_text_in_the_composer(play: Callable[..., Played]) -> None:
    played = play()
    played.write("é漢字\n  two")
    lines = played.sees("two").splitlines()
    assert [line[:12].rstrip() for line in lines[-3:]] == ["│ > é漢字", "│     two", "╰───────────"]
    look = played.look()
    assert (look.cursor_x, look.cursor_y) == (4 + len("  two"), len(lines) - 2)
    played.press("C-c")
    played.write(THIRTY_LINES)
    played.sees("│ > [Pasted text #1 +29 lines]")
    played.footer("paste again to expand")
    played.write("y" * 900)
    played.sees("[Pasted text #1 +29 lines][Pasted text #2]")
    played.press("BSpace")
    played.type(".")
    played.press("Enter")
    assert played.recorded("submitted")["text"] == f"{THIRTY_LINES}."


def test_a_resized_screen_is_drawn_anew(play: Callable[..., Played]) -> None:
    played = play()
    played.prompt("hello")
    played.recorded("turn_over")
    assert played.pane.server.cmd("resize-window", "-x", "60", "-y", "20", target=played.pane.pane_id).ok
    until(lambda: f"╭{'─' * 58}╮" in played.pane.screen().splitlines(), "the box has the new width")
    assert played.pane.screen().count("● You said: hello") == 1


def test_a_storm_of_redraws_and_a_loop(play: Callable[..., Played], folder: Path) -> None:
    played = play(Scenario(default=turn(do.Storm(0.5, 300), do.Loop("Once more.", 0.02))))
    drawn = folder / "drawn"
    played.pane.transcribe(drawn)
    played.prompt("go")
    until(lambda: drawn.exists() and drawn.read_bytes().count(b"\x1b[2J") > 20, "it draws and draws")
    until(lambda: played.pane.screen().count("● Once more.") > 10, "it repeats itself")
    played.press("Escape")
    played.recorded("interrupted")
    played.footer("? for shortcuts")


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_prompt_chooses_the_turn_and_the_scenario_may_change(play: Callable[..., Played]) -> None:
    once = turn(do.Say("once"), match="build", times=1)
    played = play(Scenario(turns=(once, turn(do.Say("again"), match="build")), default=turn(do.Say("other"))))
    for prompt in ("please build", "please build", "rest"):
        played.prompt(prompt)
        played.recorded("turn_over", len(played.cli.submitted()))
    played.cli.play(Scenario(default=turn(do.Say("new"))))
    played.prompt("rest")
    played.recorded("turn_over", 4)
    assert [record["answer"] for record in played.cli.records("turn_over")] == ["once", "again", "other", "new"]


def test_a_command_that_the_turn_runs(play: Callable[..., Played], folder: Path) -> None:
    command = f"sed -n 's/^id: //p' > {folder}/id; echo told; exit 3"
    played = play(Scenario(default=turn(do.Run(command), do.Say())))
    played.prompt("do it\nid: task-7")
    ran = played.recorded("ran")
    assert (ran["code"], ran["output"]) == (3, "told\n")
    assert (folder / "id").read_text() == "task-7"
    played.sees("● Bash(sed", "⎿  told")


@pytest.mark.parametrize(
    ("keys", "chosen", "how"),
    [
        (["1"], (1, "Yes"), "finished"),
        (["Enter"], (1, "Yes"), "finished"),
        (["Down", "Enter"], (2, "No"), "denied"),
        (["2"], (2, "No"), "denied"),
        (["Escape"], (0, ""), "denied"),
    ],
)
def test_a_permission(play: Callable[..., Played], keys: list[str], chosen: tuple[int, str], how: str) -> None:
    played = play(Scenario(default=turn(do.Permission(command="touch q.txt"), do.Say("done"))))
    played.prompt("go")
    played.sees("Do you want to proceed?", f"{POINTER} 1. Yes", "  2. No", "touch q.txt")
    assert played.title() == "✳ go"
    assert "│ >" not in played.pane.screen()
    played.press(*keys)
    assert played.recorded("turn_over")["how"] == how
    record = played.recorded("chosen")
    assert (record["number"], record["text"]) == chosen
    assert played.cli.keys() == keys
    played.footer("? for shortcuts")


def test_a_question_with_an_answer_in_words(play: Callable[..., Played]) -> None:
    played = play(
        Scenario(default=turn(do.Ask("Which colour?", ("Red", "Blue"), free=True), do.Say("I take {choice}")))
    )
    played.prompt("paint")
    played.sees("Which colour?", f"{POINTER} 1. Red", "  3. Type something.")
    played.press("3")
    played.write("dark green")
    played.sees(f"{POINTER} 3. dark green")
    played.press("Enter")
    assert played.recorded("turn_over")["answer"] == "I take dark green"


@pytest.mark.parametrize(
    ("step", "seen"),
    [
        (do.Compact(600), "Compacting conversation…"),
        (do.Retry(529, seconds=600), "529 Overloaded · Retrying in 600s · attempt 1/10"),
    ],
)
def test_what_may_take_its_time(play: Callable[..., Played], step: do.Step, seen: str) -> None:
    played = play(Scenario(default=turn(step)))
    played.prompt("go")
    played.sees(seen)
    played.press("Escape")
    played.recorded("interrupted")
    played.footer("? for shortcuts")


@pytest.mark.parametrize(
    ("step", "seen"),
    [
        (do.Retry(429, "Rate limited", 2, seconds=0.1, fails=True), "⎿  API Error: 429 Rate limited"),
        (do.Limit("3:45pm"), "You've hit your usage limit · resets 3:45pm"),
        (do.Login(), "Not logged in · Please run /login"),
        (do.Fail("API Error: 400 bad"), "⎿  API Error: 400 bad"),
    ],
)
def test_what_may_end_a_turn(play: Callable[..., Played], step: do.Step, seen: str) -> None:
    played = play(Scenario(default=turn(step)))
    played.prompt("go")
    assert played.recorded("turn_over")["how"] == "failed"
    played.sees(seen)
    played.footer("? for shortcuts")


def test_the_limit_and_the_login_may_cover_the_screen(play: Callable[..., Played]) -> None:
    limit, login = turn(do.Limit(modal=True), match="limit"), turn(do.Login(screen=True), match="login")
    played = play(Scenario(turns=(limit, login)))
    played.prompt("limit")
    played.sees("What do you want to do?", "You've hit your usage limit · resets 3:45pm", f"{POINTER} 1. Stop and wait")
    played.press("Enter")
    played.recorded("turn_over")
    played.prompt("login")
    played.sees("Select login method:")
    played.press("1")
    played.recorded("chosen", 2)
    played.sees("Select login method:")
    played.press("Escape")
    played.recorded("turn_over", 2)


@pytest.mark.parametrize("keys", [["Escape"], ["C-c"]])
def test_an_interrupt_may_put_the_prompt_back(play: Callable[..., Played], keys: list[str]) -> None:
    played = play(Scenario(default=turn(FOREVER), ways=Ways(escape_restores=True)))
    played.prompt("work on")
    played.press(*keys)
    assert played.recorded("interrupted")["text"] == "work on"
    played.sees("Interrupted", "│ > work on")
    played.write(" and on")
    played.press("Enter")
    assert played.recorded("submitted", 2)["text"] == "work on and on"


def test_a_prompt_for_a_busy_agent_waits_or_steers_or_stays(play: Callable[..., Played]) -> None:
    scenario = Scenario(turns=(turn(FOREVER, match="long"),))
    played = play(scenario)
    played.prompt("a long one")
    played.write("later")
    played.press("Enter")
    assert played.recorded("queued")["text"] == "later"
    assert played.cli.submitted() == ["a long one"]
    played.press("Escape")
    played.recorded("turn_over")
    played.cli.play(Scenario(turns=scenario.turns, ways=Ways(busy_enter="steer")))
    played.prompt("another long one")
    played.prompt("to the left")
    played.cli.play(Scenario(turns=scenario.turns, ways=Ways(busy_enter="ignore")))
    played.write("stays")
    played.press("Enter")
    played.sees("│ > stays")
    submitted = [(record["text"], record["how"]) for record in played.cli.records("submitted")]
    assert submitted == [
        ("a long one", "enter"),
        ("later", "queued"),
        ("another long one", "enter"),
        ("to the left", "steered"),
    ]
