"""What keeps a prompt out of a program: a person, a text of Torch's own, a dialog, an unknown screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_cli_parts import Played
from fake_cli_parts import folder as folder
from fake_cli_parts import play as play
from fake_cli_parts import start as start
from fake_kind import kind_toml
from fakes.cli.scenario import Scenario, Start
from waiting import until

from torch_tasks.model.agent import AgentSpec
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.kind import Hindrance, program_of

OURS = "do what this line says\n\n[torch task t-1 · when done: tell]"


@pytest.fixture
def program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> CodingAgent:
    """The driver of the fake agent; the text that it typed last is ``OURS``."""
    (folder / "config" / "agents").mkdir(parents=True)
    (folder / "config" / "agents" / "fake.toml").write_text(kind_toml(["fake"], hooks=False))
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(folder / "config"))
    kind_config.cache_clear()
    (folder / "pasted").write_text(OURS)
    (folder / "program").mkdir()
    (folder / "program" / "current").write_text(f"{folder}\n")
    program = program_of(AgentSpec(id="developer-1", role="developer", kind="fake"), folder, folder)
    assert isinstance(program, CodingAgent)
    return program


def test_nothing_keeps_a_prompt_out_of_an_empty_input_line(play: Callable[..., Played], program: CodingAgent) -> None:
    played = play()
    until(lambda: program.is_free(played.pane), "it is free")
    assert program.hindrance(played.pane) is None


def test_a_draft_is_a_persons(play: Callable[..., Played], program: CodingAgent) -> None:
    played = play()
    played.type("my own half-written th")
    until(lambda: program.hindrance(played.pane) is Hindrance.PERSON, "the draft is seen")
    read = len(played.cli.bytes())
    program.clear_input(played.pane)
    played.type("ought")
    assert played.cli.bytes()[read:] == b"ought"
    played.sees("my own half-written thought")


def test_a_text_that_torch_typed_is_its_own_and_is_cleared(play: Callable[..., Played], program: CodingAgent) -> None:
    played = play()
    played.write(OURS)
    until(lambda: program.hindrance(played.pane) is Hindrance.OWN_TEXT, "the text is seen")
    program.clear_input(played.pane)
    until(lambda: program.is_free(played.pane), "it is free again")


@pytest.mark.parametrize(
    ("dialog", "hindrance"),
    [
        ("feedback", Hindrance.DIALOG),  # the kind's file knows how to answer it
        ("update", Hindrance.DIALOG),  # a rule of the kind's reads it
        ("theme", Hindrance.UNKNOWN_SCREEN),
    ],
)
def test_a_dialog_is_known_or_is_called_unknown(
    play: Callable[..., Played], program: CodingAgent, dialog: str, hindrance: Hindrance
) -> None:
    played = play(Scenario(start=Start(dialogs=(dialog,))), ready=False)
    until(lambda: program.hindrance(played.pane) is hindrance, f"it is {hindrance.name}")


def test_the_reasons_share_no_word_for_the_cause() -> None:
    causes = {"person is typing", "Torch's own", "dialog", "works on something else", "screen that no rule"}
    for reason in Hindrance:
        assert len([cause for cause in causes if cause in reason]) == 1, reason
