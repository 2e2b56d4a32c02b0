"""A pane's keyboard is Torch's, or one person's for as long as that person is there."""

from __future__ import annotations

import pytest

from torch_tasks.errors import NotTakenOver, PaneTaken
from torch_tasks.workers.tmux.keyboard import Keyboard

AWAY_SECONDS = 60.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keyboard(clock: Clock) -> Keyboard:
    return Keyboard(AWAY_SECONDS, clock)


def test_torch_types_until_a_person_takes_it_and_after_it_was_given_back(keyboard: Keyboard) -> None:
    seen = []
    for act in (lambda: None, lambda: keyboard.take("ada"), lambda: keyboard.give_back("ada")):
        act()
        with keyboard.unless_taken() as is_free:
            seen.append((is_free, keyboard.person))
    assert seen == [(True, ""), (False, "ada"), (True, "")]


def test_one_person_has_it_at_a_time(keyboard: Keyboard) -> None:
    keyboard.take("ada")
    keyboard.take("ada")
    with pytest.raises(PaneTaken, match="ada has taken"):
        keyboard.take("bob")
    with pytest.raises(PaneTaken, match="ada has taken"):
        keyboard.give_back("bob")
    with pytest.raises(NotTakenOver, match="ada has"), keyboard.typing("bob"):
        pytest.fail("bob types")


def test_who_gives_no_sign_has_left(keyboard: Keyboard, clock: Clock) -> None:
    keyboard.take("ada")
    clock.now += AWAY_SECONDS - 1
    keyboard.stay("bob")
    keyboard.stay("ada")
    clock.now += AWAY_SECONDS - 1
    with keyboard.typing("ada"):
        pass
    clock.now += AWAY_SECONDS
    assert keyboard.person == ""
    with pytest.raises(NotTakenOver, match="Torch has it back"), keyboard.typing("ada"):
        pytest.fail("ada types")
    keyboard.stay("ada")
    assert keyboard.person == "", "a sign does not take it again"
    keyboard.take("bob")
    assert keyboard.person == "bob"
