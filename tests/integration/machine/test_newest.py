"""``make newest``: what the registries have is compared and reported; their clients are programs of the tests."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from torch_tasks.workers.programs.releases import all_releases

REPOSITORY = Path(__file__).parents[3]
AGENTS = {"claude": {"npm": "the-claude", "certified": [{"release": "2.1.9"}]}}
CASE = '<testcase classname="tests.real_agents.test_{}" name="{}">{}</testcase>'
BROKEN = CASE.format("claude.TestClaude", "test_it_starts", "<failure/>")
PASSED = CASE.format("smoke", "test_it_works[claude]", "")


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry's client, of which only the tests know what it says."""
    file = tmp_path / "npm"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    file.write_text("")
    file.chmod(0o755)
    return file


def asked(npm: Path, script: str, capsys: pytest.CaptureFixture[str]) -> tuple[tuple[dict[str, str], int], str]:
    """What is newer by a registry that does this, the number of failures, and what was printed."""
    npm.write_text(f"#!/bin/sh\n{script}\n")
    ask = runpy.run_path(str(REPOSITORY / ".ci" / "newest"))["ask_registries"]
    return ask(AGENTS, "python3"), capsys.readouterr().out


def test_a_newer_release_is_found_by_its_numbers(npm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(npm, '[ "$*" = "view the-claude version" ] && echo 2.1.10', capsys)[0] == ({"claude": "2.1.10"}, 0)
    assert asked(npm, "echo 2.1.9", capsys)[0] == ({}, 0)
    assert asked(npm, "echo 2.0.10", capsys)[0] == ({}, 0)


def test_a_registry_that_says_nothing_is_a_failure(npm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, said = asked(npm, "echo no network >&2; exit 1", capsys)
    assert found == ({}, 1)
    assert said == "claude: 'npm view the-claude version' failed: no network\n"


@pytest.mark.parametrize(
    ("cases", "said", "failures"),
    [
        (PASSED, "claude 2.1.10: all 1 tests passed; add it to config/releases.toml.", 0),
        (
            BROKEN + PASSED,
            "claude 2.1.10: 1 of 2 tests would break:\n  tests.real_agents.test_claude.TestClaude::test_it_starts",
            1,
        ),
        ("", "claude 2.1.10: no test ran.", 1),
    ],
)
def test_what_would_break_is_named(cases: str, said: str, failures: int, capsys: pytest.CaptureFixture[str]) -> None:
    report = runpy.run_path(str(REPOSITORY / ".ci" / "newest"))["report"]
    assert report({"claude": "2.1.10"}, f"<testsuites>{cases}</testsuites>") == failures
    assert capsys.readouterr().out == said + "\n"


def test_an_agent_is_installed_in_the_release_given_and_the_others_in_the_certified_ones(
    tmp_path: Path, npm: Path
) -> None:
    """The script installs into a folder of its own; the package manager here only notes what it shall install."""
    npm.write_text(f'#!/bin/sh\nfor last; do :; done\necho "$last" >> {tmp_path}/asked\n')
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase $1 in -c) exec {sys.executable} "$@" ;; esac\nexit 1\n')
    python.chmod(0o755)
    subprocess.run(
        [REPOSITORY / ".ci/real-agents", python, "claude=9.9.9"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH_TEST_AGENTS": str(tmp_path / "agents")},
        check=True,
        capture_output=True,
    )
    gemini = all_releases()["gemini"]
    asked = (tmp_path / "asked").read_text().split()
    assert {"@anthropic-ai/claude-code@9.9.9", f"{gemini.npm}@{gemini.certified[0].release}"} <= set(asked)
    assert {file.name for file in (tmp_path / "agents/failed").iterdir()} >= set(all_releases())
