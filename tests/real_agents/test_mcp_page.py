"""The commands of docs/mcp.md, by which a person's own CLI gets Torch's tools."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import PATH, needs
from machine import short_folder

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()
COMMANDS = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()  # type: ignore[index]
SECONDS = 200


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """A new user's."""
    home = short_folder()
    torch = f"{Path(sys.executable).parent}:{PATH}"
    yield {
        "HOME": str(home),
        "PATH": torch,
        "TORCH_STATE_DIR": str(home / "state"),
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
    }
    subprocess.run(["rm", "-rf", str(home)], check=True)


def run(environment: dict[str, str], *command: str) -> str:
    """What a command says, which must succeed."""
    done = subprocess.run(
        command,
        env=environment,
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_one_command_adds_the_tools(command: str, environment: dict[str, str]) -> None:
    cli = shlex.split(command)[0]
    needs(cli)
    run(environment, "bash", "-ec", command)
    listed = run(environment, cli, "mcp", "list")
    assert "torch-tasks mcp" in re.sub(r" +", " ", listed)
    assert re.search("connected" if cli != "codex" else "enabled", listed, re.IGNORECASE), "codex starts it with a task"
    assert "disconnected" not in listed.lower()
