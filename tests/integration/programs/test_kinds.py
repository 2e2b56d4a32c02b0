"""``torch-tasks kinds``, for a person with kinds of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine with two programs, each of which notes how it was called."""
    machine = Machine()
    try:
        yield machine
    finally:
        machine.close()


def program(folder: Path, name: str, said: str) -> Path:
    """A program that says this, and notes its arguments in ``calls``."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\necho "{said}"\n')
    file.chmod(0o755)
    return file


def test_kinds_lists_what_is_here_and_in_which_release(machine: Machine) -> None:
    programs = machine.folder / "programs"
    claude, own = program(programs, "claude", "9.8.7 (Claude Code)"), program(programs, "own", "no release")
    kinds = machine.folder / "config" / "agents"
    kinds.mkdir(parents=True)
    (kinds / "work.toml").write_text('base = "claude"\n')
    (kinds / "own.toml").write_text('command = ["own"]\n')
    (kinds / "gone.toml").write_text('command = ["not-there"]\n')
    path = f"{programs}:{machine.env['PATH']}"
    found = {kind["kind"]: kind for kind in json.loads(machine.torch("kinds", "--json", PATH=path).stdout)}
    work = found["work"]
    assert (work["base"], work["program"], work["path"], work["release"]) == ("claude", "claude", str(claude), "9.8.7")
    assert work["certified"] == found["claude"]["certified"]
    assert "9.8.7" not in work["certified"]
    assert (found["own"]["path"], found["own"]["release"]) == (str(own), None)
    assert "own" not in (programs / "calls").read_text(), "what it does with --version is unknown"
    shown = machine.torch("kinds", PATH=path).stdout
    assert "9.8.7, uncertified: try it: torch-tasks certify work" in shown
    assert "not on PATH" in next(line for line in shown.splitlines() if line.startswith("gone"))


def test_a_wrong_file_is_reported_and_the_others_are_listed(machine: Machine) -> None:
    kinds = machine.folder / "config" / "agents"
    kinds.mkdir(parents=True)
    (kinds / "broken.toml").write_text('command = ["x"]\nmodle = "y"\n')
    done = machine.torch("kinds", code=1)
    assert f"{kinds / 'broken.toml'}, line 2: modle" in done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {"KIND", "broken", "claude", "shell"}
