"""Whether an agent is started with the release of its program that is installed now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import certificate
from waiting import until

from torch_tasks.machine import commands
from torch_tasks.machine.certificates import Certificates
from torch_tasks.model.certificate import Outcome
from torch_tasks.settings import Certify, Settings
from torch_tasks.workers.node import release_watch
from torch_tasks.workers.node.release_watch import ReleaseWatch
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.installed import why_held

OLD, NEW = "1.0.0", "1.1.0"


class Installed:
    """A program of the user's own in its new release; whether it or the old one was tried here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "program"
        program.write_text(f"#!/bin/sh\necho {NEW}\n")
        program.chmod(0o755)
        agents = folder / "config" / "agents"
        agents.mkdir(parents=True)
        (agents / "own.toml").write_text(f'command = ["{program}"]\n[certify]\n')
        self.certificates = Certificates(Settings(state_dir=folder).state)

    def certify(self, release: str, outcome: Outcome) -> None:
        self.certificates.keep(certificate("own", release, outcome))

    def why_not(self, certify: Certify = "auto") -> str:
        """What a node worker says that has just started."""
        return self.watch(certify).why_not_start("own")

    def watch(self, certify: Certify = "auto") -> ReleaseWatch:
        return ReleaseWatch(Settings(state_dir=self.folder, certify=certify))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setattr(release_watch, "_AGAIN_SECONDS", 0.0)
    kind_config.cache_clear()
    yield Installed(tmp_path)
    kind_config.cache_clear()


@pytest.fixture
def trial(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Callable[[Outcome | None], None]:
    """Has the next trial find this; nothing if it cannot even begin."""

    def find(outcome: Outcome | None) -> None:
        file = installed.certificates.file("own", NEW)
        text = certificate("own", NEW, outcome).model_dump_json() if outcome else ""
        write = f"import pathlib, sys; pathlib.Path({str(file)!r}).write_text(sys.argv[1])" if text else "exit(3)"
        monkeypatch.setattr(commands, "runnable", lambda _: [sys.executable, "-c", write, text])

    return find


def test_where_nothing_was_ever_tried_nothing_stands_against_a_start(installed: Installed) -> None:
    assert installed.why_not() == ""


@pytest.mark.parametrize(("certify", "says"), [("auto", "is broken"), ("warn", ""), ("off", "")])
def test_a_broken_release_is_not_started_unless_that_is_allowed(
    installed: Installed, certify: Certify, says: str
) -> None:
    installed.certify(NEW, Outcome.BROKEN)
    why = installed.why_not(certify)
    assert bool(why) is bool(says)
    assert says in why
    if says:
        assert "prompts" in why
        assert "TORCH_CERTIFY=warn" in why


@pytest.mark.parametrize(("found", "says"), [(Outcome.HELD, ""), (Outcome.BROKEN, "is broken"), (None, "")])
def test_a_release_that_is_new_since_the_last_certificate_is_tried_first(
    installed: Installed, trial: Callable[[Outcome | None], None], found: Outcome | None, says: str
) -> None:
    installed.certify(OLD, Outcome.HELD)
    trial(found)
    watch = installed.watch()
    assert f"release {NEW} of own is being certified" in watch.why_not_start("own")
    until(lambda: "being certified" not in watch.why_not_start("own"), "it has been tried")
    assert says in watch.why_not_start("own")
    assert bool(watch.why_not_start("own")) is bool(says)


def test_a_release_that_is_made_good_by_hand_is_started(installed: Installed) -> None:
    installed.certify(NEW, Outcome.BROKEN)
    watch = installed.watch()
    assert watch.why_not_start("own")
    installed.certify(NEW, Outcome.HELD)
    assert watch.why_not_start("own") == ""


def test_only_a_warning_is_given_where_that_is_wanted(installed: Installed) -> None:
    installed.certify(OLD, Outcome.HELD)
    assert installed.why_not("warn") == ""


@pytest.mark.parametrize(
    ("certify", "found", "ran", "is_held"),
    [
        ("auto", None, OLD, True),
        ("auto", None, NEW, False),
        ("auto", Outcome.HELD, OLD, False),
        ("auto", Outcome.BROKEN, OLD, True),
        ("auto", Outcome.BROKEN, NEW, True),
        ("warn", Outcome.BROKEN, OLD, False),
        ("off", None, OLD, False),
    ],
)
def test_a_worker_that_runs_starts_its_program_in_a_good_release_or_in_the_same_one(
    installed: Installed, certify: Certify, found: Outcome | None, ran: str, is_held: bool
) -> None:
    installed.certify(OLD, Outcome.HELD)
    if found:
        installed.certify(NEW, found)
    assert bool(why_held("own", ran, Settings(state_dir=installed.folder, certify=certify))) is is_held


def test_a_worker_starts_any_release_where_nothing_was_ever_tried(installed: Installed) -> None:
    assert why_held("own", OLD, Settings(state_dir=installed.folder)) == ""


def test_a_program_that_is_replaced_is_noticed_at_once(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_watch, "_AGAIN_SECONDS", 1000.0)
    installed.certify(NEW, Outcome.HELD)
    watch = installed.watch()
    assert watch.why_not_start("own") == ""
    installed.certify("1.2.0", Outcome.BROKEN)
    new = installed.folder / "new"
    new.write_text("#!/bin/sh\necho 1.2.0\n")
    new.chmod(0o755)
    new.replace(installed.folder / "program")
    assert "release 1.2.0 of own is broken" in watch.why_not_start("own")
