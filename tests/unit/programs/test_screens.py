"""The rules of each kind's TOML read the screens that its real CLI showed, as ``tests/screens/record.py`` kept them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Permissions
from torch_tasks.workers.programs.answering import Dialogs
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.questions import decide_permission
from torch_tasks.workers.programs.screen import Screen, read_composer
from torch_tasks.workers.programs.screen_reading import ScreenRules

SCREENS = Path(__file__).parents[2] / "screens"


@pytest.mark.parametrize("file", sorted(SCREENS.glob("*/*.txt")), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_recorded_screen_is_read_as_what_it_is(file: Path) -> None:
    _release, header, drawn = file.read_text().split("\n", 2)
    wanted = json.loads(header)
    config = kind_config(file.parent.name)
    screen = Screen.parse(drawn, cursor=tuple(wanted["cursor"]), title=wanted["title"])
    composer = read_composer(screen, config.composer)
    assert (composer.text if composer.seen else None) == wanted["composer"]
    reading = ScreenRules(config).read(screen, composer)
    assert reading.state == wanted["state"], reading.rule
    if wanted["question"]:
        assert reading.question
        assert reading.question.text == wanted["question"]
        assert list(reading.question.choices) == wanted["choices"]


def test_aiders_question_is_still_asked_while_its_answer_is_typed() -> None:
    drawn = (SCREENS / "aider/question.txt").read_text().split("\n", 2)[2]
    menu = ScreenRules(kind_config("aider")).menu(Screen.parse(drawn.replace("[Yes]: ", "[Yes]: y")))
    assert menu
    assert (menu.words, menu.typed) == (("Yes", "No"), "y")


def test_aiders_question_over_which_it_draws_that_it_waits_is_still_asked() -> None:
    config, page = kind_config("aider"), "https://platform.openai.com/account/api-keys"
    error = "litellm.AuthenticationError: AuthenticationError: OpenAIException - Incorrect API key provided: sk-dummy."
    above = f"> repair\n> [torch task one · when done: torch-tasks done one]\n\n{error}\n"
    spinner = "   █░      Waiting for openai/fake-model"
    for rest in (f"{page}\n{spinner}'t ask again [Yes]:", f"{page}\n{spinner}-with-a-name-that-covers-it-all"):
        screen = Screen.parse(f"{above}\n{rest}")
        reading = ScreenRules(config).read(screen, read_composer(screen, config.composer))
        assert reading.rule == "covered question"
        assert reading.question
        decision = decide_permission(reading.question, Permissions.ALLOW, config.permissions)
        assert decision == (False, "the pattern 'http*'")
    screen = Screen.parse(f"{above}Retrying in 0.2 seconds...\n{spinner}")
    assert ScreenRules(config).read(screen, read_composer(screen, config.composer)).state is AgentState.WORKING


def test_aiders_question_is_over_once_it_has_taken_the_answer_though_nothing_is_below_it_yet() -> None:
    config = kind_config("aider")
    asked = "────\nNo git repo found, create one to track aider's changes (recommended)? (Y)es/(N)o [Yes]: n"
    rules, dialogs = ScreenRules(config), Dialogs(config.dialogs)
    for row, state in ((1, AgentState.WAITING), (2, AgentState.WORKING)):
        screen = Screen.parse(asked, cursor=(0, row))
        assert rules.read(screen, read_composer(screen, config.composer)).state is state
        assert (dialogs.find(screen, "") is not None) == (state is AgentState.WAITING)


@pytest.mark.parametrize("line", ["  Queued (press ↑ to edit):\n    the prompt", " ⠏ Resuming session..."])
def test_gemini_works_as_long_as_it_keeps_a_prompt_for_later_whatever_its_title_says(line: str) -> None:
    """Its servers of tools may take half a minute to start: a prompt that is sent again then arrives twice."""
    config = kind_config("gemini")
    _release, header, drawn = (SCREENS / "gemini/ready.txt").read_text().split("\n", 2)
    title = json.loads(header)["title"]
    above, hook, composer = drawn.partition("  \x1b[3m")  # that its hook runs stands right above the composer
    assert hook
    for shown, state in (
        (drawn, AgentState.READY),
        (f"{above.rstrip()}\n{line}\n{hook}{composer}", AgentState.WORKING),
    ):
        screen = Screen.parse(shown, title=title)
        assert ScreenRules(config).read(screen, read_composer(screen, config.composer)).state is state
