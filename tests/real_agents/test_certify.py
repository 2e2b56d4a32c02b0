"""Each real CLI keeps all that Torch promises of it, as ``torch-tasks certify`` tries it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from installed import AGENTS, PATH, needs
from machine import TORCH_TASKS

from torch_tasks.workers.certify.homes import HOMES
from torch_tasks.workers.certify.promises import NOT_APPLICABLE, PROMISES

pytestmark = pytest.mark.slow
#: A trial takes minutes, and several times as many on a busy machine; it ends by itself before that.
SECONDS = 1300


def certify(kind: str, cli: str, way: str, folder: Path) -> None:
    """Have the kind tried, whose program this is: all holds that applies to programs driven this way."""
    needs(cli)
    environment = {**os.environ, "PATH": PATH, "TORCH_STATE_DIR": str(folder), "TORCH_CONFIG_DIR": str(folder / "own")}
    done = subprocess.run([TORCH_TASKS, "certify", kind, "--json"], env=environment, capture_output=True, check=False)
    assert done.stdout, done.stderr.decode()
    [certificate] = json.loads(done.stdout)
    found = {result["promise"]: result for result in certificate["promises"]}
    skipped = NOT_APPLICABLE.get(way, {})
    held = {name: "not applicable" if name in skipped else "held" for name in (promise.name for promise in PROMISES)}
    assert {name: result["outcome"] for name, result in found.items()} == held, found
    assert done.returncode == 0
    assert certificate["release"] == (AGENTS / cli / "installed").read_text().strip()
    said = subprocess.run([TORCH_TASKS, "kinds", "--json"], env=environment, capture_output=True, check=True).stdout
    assert next(one["release_state"] for one in json.loads(said) if one["kind"] == kind) == "certified"


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("cli", HOMES)
def test_a_real_cli_is_certified(cli: str, tmp_path: Path) -> None:
    certify(cli, cli, cli, tmp_path)


@pytest.mark.timeout(SECONDS)
def test_a_real_program_is_certified_over_the_agent_client_protocol(tmp_path: Path) -> None:
    (tmp_path / "own/agents").mkdir(parents=True)
    (tmp_path / "own/agents/opencode-acp.toml").write_text('base = "acp"\ncommand = ["opencode", "acp"]\n')
    certify("opencode-acp", "opencode", "acp", tmp_path)
