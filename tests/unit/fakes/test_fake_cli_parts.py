"""The parts of the fake coding agent that need no terminal."""

from __future__ import annotations

from dataclasses import fields

import pytest
from fakes.cli.data import BadScenario
from fakes.cli.keys import Key, KeyReader, Paste, Typed
from fakes.cli.scenario import Events, Faults, Looks, Scenario, Start, Turn, Ways
from fakes.cli.steps import STEPS, Permission, Say, Shell

STREAM = "hé\r\x1b[200~a\r\n\x1b[31m🚒\x1b[201~\x03\x1b[A\x1bOB\x1b\r\x15漢\x7f\x1b".encode()
EVENTS = [
    Typed("hé"),
    Key("Enter"),
    Paste("a\r\n\x1b[31m🚒"),
    *map(Key, ("C-c", "Up", "Down", "M-Enter", "C-u")),
    Typed("漢"),
    Key("Backspace"),
    Key("Escape"),
]


def test_keys_are_the_same_however_their_bytes_are_cut() -> None:
    for cut in range(len(STREAM) + 1):
        reader = KeyReader()
        events = [*reader.feed(STREAM[:cut]), *reader.feed(STREAM[cut:])]
        assert reader.unsure
        events += reader.settle()
        texts = [event for event in events if event != Typed("h")]
        assert [Typed("hé") if event == Typed("é") else event for event in texts] == EVENTS


def test_a_scenario_is_the_same_after_a_way_through_its_file() -> None:
    full = Scenario(
        default=Turn((Permission(choices=("Yes", "Always", "No"), denied=(Say("no"), Shell())),), "x", 2),
        turns=tuple(Turn((step(),), name) for name, step in STEPS.items()),
        start=Start(1.5, False, ("theme", "trust")),
        looks=Looks(title_busy=("* {topic}",), ghost="é"),
        ways=Ways(busy_enter="steer"),
        faults=Faults(swallow_enters=1),
        events=Events(off=("Stop",), late={"SessionStart": 2.0}),
    )
    assert Scenario.parse(full.dump()) == full
    assert Scenario().dump() == "{}"
    assert {item.name for item in fields(full) if getattr(full, item.name) == getattr(Scenario(), item.name)} == set()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ('{"fault": {}}', "Scenario has no fault; it has default, turns"),
        ('{"default": {"steps": [{"do": "wrok"}]}}', "'do' is one of work, say"),
        ('{"default": {"steps": [{"do": "work", "secs": 1}]}}', "Work has no secs; it has seconds"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_said(text: str, said: str) -> None:
    with pytest.raises(BadScenario) as raised:
        Scenario.parse(text)
    assert said in str(raised.value)
