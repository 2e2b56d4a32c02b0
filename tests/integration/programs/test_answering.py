"""A menu in a real pane is answered by the words of a choice, once it is drawn whole."""

from __future__ import annotations

from collections.abc import Callable

from tmux_parts import folder as folder
from tmux_parts import start as start
from waiting import until

from torch_tasks.workers.programs.answering import Answered, Answerer
from torch_tasks.workers.programs.menu import read_menu
from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.tmux.pane import AgentPane

HALF = r"printf 'Proceed?\n❯ 1. No\n  2. Never\n'; "
WHOLE = r"printf '\033[2A  1. No\033[K\n  2. Never\n❯ 3. Yes\n'; read -r _; echo taken; "
STAY = "sleep 600"


def shown(pane: AgentPane, text: str) -> bool:
    screen = Screen.of(pane)
    return bool(screen and text in screen.text)


def choose_yes(pane: AgentPane) -> Answered:
    """Choose it as soon as the other two choices are shown."""
    until(lambda: shown(pane, "2. Never"), "two choices are shown")
    return Answerer(pane, read_menu).choose("Yes".__eq__)


def test_a_choice_that_is_drawn_after_the_others_is_awaited(start: Callable[..., AgentPane]) -> None:
    pane = start("sh", "-c", f"{HALF}sleep 1; {WHOLE}{STAY}")
    assert choose_yes(pane) is Answered.GIVEN
    until(lambda: shown(pane, "taken"), "the program has got its Enter")


def test_a_menu_that_stays_without_the_choice_does_not_have_it(start: Callable[..., AgentPane]) -> None:
    pane = start("sh", "-c", f"{HALF}{STAY}")
    assert choose_yes(pane) is Answered.NO_SUCH_CHOICE
