"""A prompt's way into a coding agent's program: what is asserted is what the model received."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from fake_kind import FakeKind, words
from fakes.cli.scenario import Faults, Looks, Scenario, Turn, Ways
from fakes.cli.steps import Compact, Say, Storm
from nodes import Broker, Node

from torch_tasks import TaskResult, Torch

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

Do = Callable[..., TaskResult]


TOLD, SHOWN = "told by hooks", "read from the screen"
"""How the program's state is known."""


def both_ways(all_told: Iterable[str], some_shown: Iterable[str]) -> pytest.MarkDecorator:
    """Runs the test with each of these names, and with some of them where the screen alone tells."""
    cases = [*((TOLD, name) for name in all_told), *((SHOWN, name) for name in some_shown)]
    return pytest.mark.parametrize(("fake", "name"), cases, indirect=["fake"])


@pytest.fixture(scope="module")
def fake(request: pytest.FixtureRequest, broker: Broker, torch: Torch) -> Iterator[FakeKind]:
    """A fake agent that was briefed."""
    broker.empty()
    node = Node("node-a", broker, torch)
    fake = FakeKind(node, hooks=request.param == TOLD)
    fake.worker()
    assert torch.enqueue("get ready").result(timeout=60).succeeded
    yield fake
    node.close()


@pytest.fixture
def do(fake: FakeKind, torch: Torch) -> Iterator[Do]:
    """Gives the agent a task, under a scenario."""

    def enqueue(prompt: str, scenario: Scenario | None = None, **fields: Any) -> TaskResult:
        fake.cli.play(scenario or Scenario())
        return torch.enqueue(prompt, **fields).result(timeout=60)

    yield enqueue
    fake.cli.play(Scenario())


@both_ways(PROMPTS, ["one character", "20 kB", "marks of other CLIs", "backslash"])
def test_the_model_receives_the_words_exactly_once(do: Do, fake: FakeKind, name: str) -> None:
    before = len(fake.prompts())
    result = do(PROMPTS[name])
    received = fake.prompts()[before:]
    assert [words(prompt) for prompt in received] == [SENT.get(name, PROMPTS[name])]
    assert result.succeeded
    assert result.answer.startswith("You said: ")
    assert not fake.cli.local()


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
def test_no_fault_of_the_program_loses_or_doubles_a_prompt(do: Do, fake: FakeKind, name: str) -> None:
    before = len(fake.prompts())
    text = "do it\nand say so"
    result = do(text, FAULTS[name])
    received = fake.prompts()[before:]
    assert [words(prompt) for prompt in received] == [text]
    assert result.succeeded
    assert result.answer.startswith("You said: ")
