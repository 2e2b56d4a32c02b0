"""Who calls is read from the environment of an agent's pane, in one way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from torch_tasks.caller import OPERATOR, Caller, CallerKind, caller, leave_pane, own_keys
from torch_tasks.errors import WrongUsage
from torch_tasks.machine.issued_keys import issue_into
from torch_tasks.model.asker import Asker
from torch_tasks.server.tokens import TokenRole
from torch_tasks.settings import settings
from torch_tasks.signing.authority import signer_as_asker
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.keyring import Keyring

Issue = Callable[[str, str], Path]

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


def test_no_keys_are_issued_in_an_agents_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state" / "agents" / "dev-1").mkdir(parents=True)
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path / "state"))
    settings.cache_clear()
    ring = Keyring(tmp_path / "keys", "vm")
    with pytest.raises(WrongUsage, match="dev-1 is an agent's name, so no keys are issued to it"):
        issue_into(ring, tmp_path / "dev-1", CallerKind.PROGRAM, "dev-1", "program", 60)
    assert not (tmp_path / "dev-1").exists()
    assert not ring.issued()
    settings.cache_clear()


@pytest.fixture
def issued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Issue:
    """Issues keys and names them to this process."""

    def issue(name: str, role: str) -> Path:
        folder, ring = tmp_path / name, Keyring(tmp_path / "keys", "vm")
        issue_into(ring, folder, TokenRole(role).kind, name, role, 60)
        monkeypatch.setenv("TORCH_KEYS_DIR", str(folder))
        return folder

    return issue


@pytest.mark.parametrize(
    ("name", "role", "kind"),
    [
        ("ci", "program", CallerKind.PROGRAM),
        ("anna", "operator", CallerKind.PERSON),
        ("screen", "viewer", CallerKind.PERSON),
    ],
)
def test_keys_that_were_issued_say_who_calls(issued: Issue, name: str, role: str, kind: CallerKind) -> None:
    folder = issued(name, role)
    assert (caller().kind, caller().name, caller().role) == (kind, name, role)
    signer = Keyring(folder, "elsewhere").identity().certificate
    assert signer_as_asker(signer) == Asker.now()


def test_keys_that_torch_toml_names_say_so_too(issued: Issue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = issued("nightly", "program")
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("TORCH_KEYS_DIR")
    (tmp_path / "torch.toml").write_text(f'keys_dir = "{folder}"\n')
    own_keys.cache_clear()
    assert caller().name == "nightly"
    own_keys.cache_clear()


def test_in_a_pane_its_agent_calls_whatever_keys_are_named(pane: Path, issued: Issue) -> None:
    issued("ci", "program")
    assert caller() == Caller("qa-1", 7, pane)


def test_with_the_keys_of_a_machine_a_person_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Keyring(tmp_path / "keys", "vm")
    ring.identity(CallerKind.NODE)
    private = new_key()
    joined = Keyring.of_fleet(tmp_path / "far", ring.fleet_text, "far", root_place="vm")
    joined.keep(private, ring.issue(CallerKind.NODE, "far", public_key_of(private)))
    for folder in (ring.folder, joined.folder, tmp_path / "none"):
        monkeypatch.setenv("TORCH_KEYS_DIR", str(folder))
        assert caller() == Caller()


def test_a_broken_certificate_names_nobody(issued: Issue) -> None:
    (file,) = issued("broken", "program").glob("program-*.json")
    for text in ("", "[]", '{"certificate": 7}', '{"certificate": "AAAA.x"}'):
        file.write_text(text)
        own_keys.cache_clear()
        assert caller() == Caller()


@pytest.mark.parametrize("name", ["operator", "Ci", "a b", "", "x" * 49, "../x"])
def test_no_keys_are_issued_in_a_name_that_cannot_be(issued: Issue, name: str) -> None:
    with pytest.raises(WrongUsage, match="is no name for the bearer of keys"):
        issued(name, "program")


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
