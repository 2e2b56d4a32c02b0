"""Each real CLI starts, answers, uses a tool and leaves; what the model received is what is asserted."""

from __future__ import annotations

import json
import subprocess

import pytest
from driven import Driven
from installed import AGENTS
from machine import TORCH_TASKS

from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.certify.homes import HOMES

pytestmark = [pytest.mark.parametrize("cli", HOMES), pytest.mark.slow]

HOSTILE = "\n".join(
    [
        "first \"line\" it's $HOME `id` $(id) 'x'",
        "    indented \\ back\\\\slash ! # & ; | > < ~",
        "é 漢字 🚒 ─ │ ❯ › ✻ Enter",
        "/etc/hosts -n * ? [x] {a,b} %s",
    ]
)


def test_a_real_cli_works_with_the_fake_model(driven: Driven, home: Home, llm: FakeLLM) -> None:
    llm.on("first", "The answer is " + "forty-two, " * 10 + "and that is all.")
    driven.send(HOSTILE)
    driven.wait_shown("and that is all.")
    assert llm.prompts() == [HOSTILE]

    llm.on("make it", *home.creates("made.txt"))
    driven.send("make it")
    driven.wait(lambda: home.asks(driven.pane), "it asks before it makes the file")
    assert not (home.work / "made.txt").exists()
    driven.pane.press("Enter")
    driven.wait_shown(home.created)
    assert (home.work / "made.txt").exists()

    assert driven.leave() == 0
    assert llm.prompts() == [HOSTILE, "make it"]


def test_torch_knows_which_release_it_is(home: Home) -> None:
    environment = {**home.environment, "TORCH_CONFIG_DIR": str(home.folder / "none")}
    said = subprocess.run([TORCH_TASKS, "kinds", "--json"], env=environment, capture_output=True, check=True).stdout
    [kind] = [kind for kind in json.loads(said) if kind["kind"] == home.cli]
    assert kind["release"] == (AGENTS / home.cli / "installed").read_text().strip()
