"""What a screen shows of a program: its text without suggestions, its composer, and the state that rules read."""

from __future__ import annotations

import re

import pytest

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question
from torch_tasks.workers.programs.config import ComposerConfig, KindConfig, RuleConfig
from torch_tasks.workers.programs.screen import Composer, ComposerContent, Screen, read_composer
from torch_tasks.workers.programs.screen_reading import ScreenRules

BOXED = ComposerConfig(
    top=re.compile("^╭─+╮$"),
    bottom=re.compile("^╰─+╯$"),
    prompt=re.compile("^│ >( |$)"),
    continuation=re.compile("^│   "),
    placeholder=re.compile(r"\[Pasted text #\d+(?: \+(?P<lines>\d+) lines)?\]"),
    hints=(re.compile("Type your message.*"),),
)
OURS = "first line of ours\n    second   line\n\n" + "a long one " * 10 + "\n\n[torch task t-1 · when done: tell]"


def boxed(*rows: str) -> Screen:
    """A screen with this text in its composer."""
    inside = "\n".join(f"│ {row:<30} │" for row in rows)
    return Screen.parse(
        f"> what was said\n╭────╮\n│ an old box │\n╰────╯\n\n╭──────╮\n{inside}\n╰──────╯\n  ? for help\n\n"
    )


def seen(*rows: str) -> Composer:
    return read_composer(boxed(*rows), BOXED)


def test_suggestions_are_no_text() -> None:
    dim, plain, reverse = "\x1b[2m", "\x1b[0m", "\x1b[7m"
    screen = Screen.parse(f"> {dim}try this{plain} x\n> {reverse}t\x1b[0;2mry that{plain}\n{dim}still\ndim\x1b[22m not")
    assert screen.lines == ("> try this x", "> try that", "still", "dim not")
    assert screen.solid == (">          x", ">", "", "    not")
    colours = Screen.parse("\x1b[38;5;2mgreen\x1b[38;2;2;7;2m colour\x1b[39m\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\")
    assert colours.solid == ("green colourlink",)


def test_the_composer_is_the_last_box() -> None:
    assert seen(">").is_empty
    assert seen("> Type your message or @path").is_empty
    assert seen("> \x1b[2mtry this\x1b[22m").is_empty
    assert seen("> one", "  two").text.split() == ["one", "two"]


@pytest.mark.parametrize("rows", [("Do you trust this?", "❯ 1. Yes"), ("❯ 1. Yes", "  2. No"), ("  an answer", "text")])
def test_a_dialog_in_its_place_is_no_composer(rows: tuple[str, ...]) -> None:
    assert not seen(*rows).seen
    assert read_composer(Screen.parse("nothing but text"), BOXED) == Composer(seen=False, top=1)


def test_without_a_box_it_begins_with_the_last_prompt_mark() -> None:
    plain = ComposerConfig()
    assert read_composer(Screen.parse("> said\nanswer\n\n>\n\n\n"), plain).is_empty
    assert read_composer(Screen.parse("> said\nanswer\n› my text\n  more\n"), plain).text == "my text\nmore"


def held(*rows: str) -> ComposerContent:
    return seen(*rows).compare(OURS, BOXED.placeholder)


def test_whose_text_it_holds() -> None:
    whole = OURS.split("\n")
    assert held(">") is ComposerContent.NOTHING
    assert held("Trust?") is ComposerContent.UNSEEN
    assert held(f"> {whole[0]}", *(f"  {row}" for row in whole[1:])) is ComposerContent.OURS
    assert held(*(f"  {row}" for row in whole[3:])) is ComposerContent.OURS  # its beginning scrolled away
    assert held("> first line of ours") is ComposerContent.PART
    assert held("> my own thing") is ComposerContent.FOREIGN
    assert held("> first", "  line") is ComposerContent.FOREIGN  # too little to decide
    assert held(f"> my own {whole[0]}", *(f"  {row}" for row in whole[1:])) is ComposerContent.MIXED
    assert held("> [Pasted text #7 +5 lines]") is ComposerContent.OURS
    assert held("> [Pasted text #7 +3 lines]") is ComposerContent.PART
    assert held("> [Pasted text #1 +5 lines][Pasted text #2 +5 lines]") is ComposerContent.PART
    assert held("> [Pasted text #7 +5 lines] and more") is ComposerContent.MIXED


def detector(*rules: RuleConfig) -> ScreenRules:
    return ScreenRules(KindConfig(command=("x",), rules=rules))


def rule(name: str, state: AgentState, where: str, pattern: str, **more: object) -> RuleConfig:
    return RuleConfig.model_validate({"name": name, "state": state, "where": where, "pattern": pattern, **more})


def test_the_most_important_rule_that_fits_decides() -> None:
    rules = detector(
        rule("box", AgentState.READY, "composer", r"\A\Z"),
        rule("said", AgentState.ERROR, "bottom 2", "what was said", priority=9),
        rule("spinner", AgentState.WORKING, "above composer 9", "said", unless="never", priority=5),
    )
    screen = boxed(">")
    reading = rules.read(screen, read_composer(screen, BOXED))
    assert (reading.state, reading.rule) == (AgentState.WORKING, "spinner")
    assert detector().read(screen, read_composer(screen, BOXED)).state is AgentState.UNKNOWN
    titled = Screen.parse("x", title="✳ idle")
    assert detector(rule("t", AgentState.READY, "title", "^✳")).read(titled, Composer(seen=False)).source == "title"


def test_a_rule_reads_the_question_and_its_choices() -> None:
    screen = Screen.parse("1. not this\nAllow Bash(ls -l)?\n❯ 1. Yes\n  2. No, and say why\n")
    asks = rule("asks", AgentState.WAITING, "screen", r"^(?P<question>Allow (?P<subject>.*)\?)$")
    question = detector(asks).read(screen, Composer(seen=False)).question
    assert question == Question(text="Allow Bash(ls -l)?", choices=("Yes", "No, and say why"), subject="Bash(ls -l)")


ALLOW = r"(?P<question>Allow (?P<subject>Bash\(.*?\))\?)"


@pytest.mark.parametrize("where", ["screen", "bottom 6", "composer"])
@pytest.mark.parametrize("state", [AgentState.WAITING, AgentState.LIMITED, AgentState.LOGIN, AgentState.ERROR])
def test_what_stands_in_the_composer_is_not_what_the_program_says(where: str, state: AgentState) -> None:
    rules = detector(rule("asks", state, where, ALLOW), rule("box", AgentState.READY, "composer", "", priority=-1))
    screen = boxed("> Say what it means:", "  Allow Bash(ls)?")
    assert rules.read(screen, read_composer(screen, BOXED)).state is AgentState.READY


def test_a_question_above_the_composer_is_asked_whatever_the_composer_quotes() -> None:
    rules = detector(rule("asks", AgentState.WAITING, "screen", ALLOW))
    screen = Screen.parse("\n".join(["Allow Bash(rm)?", *boxed("> Allow Bash(ls)?").lines]))
    question = rules.read(screen, read_composer(screen, BOXED)).question
    assert question is not None
    assert question.subject == "Bash(rm)"
