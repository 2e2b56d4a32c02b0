"""A menu that no rule of the kind knows: what it asks, and that it is no composer."""

from __future__ import annotations

from dataclasses import replace

from torch_tasks.visible_text import one_line
from torch_tasks.workers.programs.menu import Menu, read_menu
from torch_tasks.workers.programs.screen import Composer, Screen

#: How many lines above the choices are the question, and how much of them is shown.
_ASKED, _TOLD = 3, 200
#: What frames a line.
_FRAME = " \t│┃|║╭╮╰╯─━═┌┐└┘"


def asked_above(menu: Menu, screen: Screen) -> str:
    """The lines right above the menu, which say what it is about."""
    asked: list[str] = []
    for line in reversed(screen.lines[: menu.choices[0].row]):
        words = line.strip(_FRAME)
        if words:
            asked.insert(0, words)
        if len(asked) == _ASKED or (asked and not words):
            break
    return one_line(" ".join(asked) or "It asks for a choice", _TOLD)


def unless_menu(composer: Composer, screen: Screen) -> Composer:
    """What was read as a composer, or none if it is a menu whose pointer looks like the composer's prompt."""
    menu = read_menu(screen, composer.top) if composer.text else None
    if menu is None or menu.highlighted is None or menu.choices[-1].row < composer.top:
        return composer
    return replace(composer, seen=False, text="", top=len(screen.text.split("\n")))
