"""Who calls is read from the environment of an agent's pane, in one way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from torch_tasks.caller import OPERATOR, Caller, caller, leave_pane

_OF_A_PANE = ("TORCH_AGENT_ID", "TORCH_TASK_ID", "TORCH_INCARNATION", "TORCH_STATE_DIR")


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _OF_A_PANE:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process runs in the pane of qa-1; its folder."""
    folder = tmp_path / "agents" / "qa-1"
    folder.mkdir(parents=True)
    for name, value in zip(_OF_A_PANE, ("qa-1", "", "7", str(tmp_path)), strict=True):
        monkeypatch.setenv(name, value)
    return folder


def test_outside_a_pane_a_person_calls() -> None:
    assert caller() == Caller()
    assert caller().name == OPERATOR
    assert caller().task is None


def test_in_a_pane_its_agent_calls(pane: Path) -> None:
    assert caller() == Caller("qa-1", 7, pane)
    assert caller().name == "qa-1"


def test_an_agent_without_a_state_folder_has_no_folder(pane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_STATE_DIR")
    assert (caller().agent, caller().folder, caller().task) == ("qa-1", None, None)


@pytest.mark.parametrize("told", ["", "x", "-1"])
def test_what_is_no_incarnation_is_none(pane: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv("TORCH_INCARNATION", told)
    assert caller().incarnation is None


def test_the_task_of_a_shell_is_in_its_environment(pane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pane / "journal.json").write_text(json.dumps({"current": {"task_id": "of-the-journal"}}))
    monkeypatch.setenv("TORCH_TASK_ID", "of-the-pane")
    assert caller().task == "of-the-pane"


@pytest.mark.parametrize(
    ("journal", "task"),
    [({"current": {"task_id": "one"}}, "one"), ({"current": None}, None), ({}, None), ("no json", None)],
)
def test_the_task_of_a_coding_agent_is_in_its_journal(pane: Path, journal: object, task: str | None) -> None:
    (pane / "journal.json").write_text(journal if isinstance(journal, str) else json.dumps(journal))
    assert caller().task == task


def test_who_leaves_the_pane_is_a_person(pane: Path) -> None:
    leave_pane()
    assert caller() == Caller()
    assert not {"TORCH_AGENT_ID", "TORCH_TASK_ID", "TORCH_INCARNATION"} & set(os.environ)
