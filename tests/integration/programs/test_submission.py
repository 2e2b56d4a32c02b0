"""A prompt's way into a coding agent's program: what is asserted is what the model received."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from fake_kind import FakeKind, words
from fakes.cli.scenario import Faults, Looks, Scenario, Turn, Ways
from fakes.cli.steps import Compact, Say, Storm
from nodes import Node

from torch_tasks import TaskResult, Torch
from torch_tasks.model.task import FailureKind

GUARD = "The task, word for word:\n"

PROMPTS = {
    "one character": "x",
    "thirty lines": "\n".join(f"{number}. do what line {number} says" for number in range(30)),
    "20 kB": "\n".join(f'{number:04} it\'s `all` $one "text"' for number in range(700)),
    "quotes": """it's "quoted" 'twice' ''' \"\"\" $HOME $(id) `id` ${x} $$ !! \\n \\\\""",
    "emoji": "🚒 👩‍🚒 é e\u0301 漢字 ﷽ ñ ½ → ✓",
    "minus": "-n --help - text",
    "hash": "# a heading, no comment",
    "at": "@nobody look at @this",
    "tabs": "\ta\tb\n\t\tc",
    "blank ends": "  \n text \n\n ",
    "the text Enter": "Enter",
    "the text C-c": "C-c",
    "marks of other CLIs": "> a\n❯ 1. Yes\n│ > b │\n› c\n╭──╮\n╰──╯\n✻ esc to interrupt\n[Pasted text #1 +2 lines]",
    "slash": "/help me with this",
    "bang": "! rm -rf nothing",
    "backslash": "ends in a backslash \\",
    "unframed": "a frame's end \x1b[201~ and text\x1b[200~ more",
    "CRLF": "one\r\ntwo\rthree",
}
SENT = {
    "tabs": GUARD + PROMPTS["tabs"],
    "blank ends": GUARD + PROMPTS["blank ends"],
    "slash": GUARD + PROMPTS["slash"],
    "bang": GUARD + PROMPTS["bang"],
    "CRLF": "one\ntwo\nthree",
    "unframed": "a frame's end ␛[201~ and text␛[200~ more",
}

Do = Callable[[str, str, Scenario], tuple[list[str], TaskResult]]


TOLD, SHOWN = "told", "shown"
"""How the program's state is known: by its hooks, or by its screen alone. Each is an agent."""


def both_ways(all_told: Iterable[str], some_shown: Iterable[str]) -> pytest.MarkDecorator:
    """Runs the test with each of these names, and with some of them where the screen alone tells."""
    cases = [*((TOLD, name) for name in all_told), *((SHOWN, name) for name in some_shown)]
    return pytest.mark.parametrize(("way", "name"), cases)


@pytest.fixture(scope="module")
def fakes(shared_node: Node, torch: Torch) -> dict[str, FakeKind]:
    """Two fake agents that were briefed."""
    fakes = {way: FakeKind(shared_node, hooks=way == TOLD, name=way) for way in (TOLD, SHOWN)}
    for way, fake in fakes.items():
        fake.worker(way)
        assert torch.enqueue("get ready", agent=way).result(timeout=60).succeeded
    return fakes


@pytest.fixture
def do(fakes: dict[str, FakeKind], torch: Torch) -> Do:
    """Gives an agent a task, under a scenario; returns what its model received of it, and how it ended."""

    def enqueue(way: str, prompt: str, scenario: Scenario) -> tuple[list[str], TaskResult]:
        fake = fakes[way]
        fake.cli.play(scenario)
        before = len(fake.prompts())
        result = torch.enqueue(prompt, agent=way).result(timeout=60)
        assert not fake.cli.local()
        return [words(text) for text in fake.prompts()[before:]], result

    return enqueue


@both_ways(PROMPTS, ["one character", "20 kB", "marks of other CLIs", "backslash"])
def test_the_model_receives_the_words_exactly_once(do: Do, way: str, name: str) -> None:
    received, result = do(way, PROMPTS[name], Scenario())
    assert received == [SENT.get(name, PROMPTS[name])]
    assert result.succeeded
    assert result.answer.startswith("You said: ")


GHOST = Looks(ghost="delete everything")
FAULTS = {
    "Enter is swallowed": Scenario(faults=Faults(swallow_enters=2)),
    "deaf after a paste": Scenario(faults=Faults(deaf_after_paste=0.5)),
    "Enter becomes a line break": Scenario(faults=Faults(swallow_enters=1, swallowed_breaks=True)),
    "accepts late": Scenario(faults=Faults(accept_after=2.5), looks=GHOST, ways=Ways(enter_takes_ghost=True)),
    "suggests something": Scenario(faults=Faults(swallow_enters=1), looks=GHOST, ways=Ways(enter_takes_ghost=True)),
    "draws late": Scenario(faults=Faults(draw_after=0.7)),
    "the paste is lost": Scenario(faults=Faults(drop_pastes=1)),
    "the paste is cut": Scenario(faults=Faults(cut_pastes=1, cut_at=50)),
    "collapses every paste": Scenario(ways=Ways(collapse_lines=0)),
    "collapses, cut": Scenario(ways=Ways(collapse_lines=0), faults=Faults(cut_pastes=1, cut_at=10)),
    "redraws in storms": Scenario(default=Turn(steps=(Storm(seconds=1.5), Say()))),
    "compacts": Scenario(default=Turn(steps=(Compact(seconds=1), Say()))),
    "streams": Scenario(default=Turn(steps=(Say(text="You said: a long answer " * 20, seconds=2),))),
}


@both_ways(FAULTS, ["Enter is swallowed", "accepts late", "the paste is cut", "collapses, cut", "streams"])
def test_no_fault_of_the_program_loses_or_doubles_a_prompt(do: Do, way: str, name: str) -> None:
    text = "do it\nand say so"
    received, result = do(way, text, FAULTS[name])
    assert received == [text]
    assert result.succeeded
    assert result.answer.startswith("You said: ")


QUICK = {
    "its prompt is not shown": Scenario(
        default=Turn(steps=(Say(text="You said: 4"),)), looks=Looks(echoes_prompts=False)
    ),
    "its prompt is pushed off the screen": Scenario(
        default=Turn(steps=(Say(text="You said: 4\n" + "\n".join(f"and line {number}" for number in range(80))),))
    ),
}


@pytest.mark.parametrize("name", QUICK)
def test_a_turn_that_is_quicker_than_one_look_is_seen(do: Do, name: str) -> None:
    received, result = do(SHOWN, "what is 2 and 2", QUICK[name])
    assert received == ["what is 2 and 2"]
    assert result.succeeded
    assert result.answer.startswith("You said: 4")


@pytest.mark.parametrize("way", [TOLD, SHOWN])
def test_a_paste_that_is_drawn_late_is_not_pasted_twice(do: Do, way: str) -> None:
    received, result = do(way, "only once", Scenario(faults=Faults(draw_after=4.0)))
    assert received == ["only once"]
    assert result.succeeded
    # The next task finds an empty composer.
    received, result = do(way, "and the next", Scenario())
    assert received == ["and the next"]
    assert result.succeeded


def test_a_prompt_that_left_no_trace_is_never_sent_again_where_only_the_screen_tells(do: Do) -> None:
    received, result = do(SHOWN, "where am I", Scenario(faults=Faults(lose_prompts=1)))
    assert received == []
    assert result.error.kind is FailureKind.INDETERMINATE
    assert "cannot tell whether the agent got the prompt" in result.error.message
