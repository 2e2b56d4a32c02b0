"""``python tests/fakes/cli/__main__.py [--scenario FILE] [--record FILE] [--hooks FILE]``, in a terminal.

Whatever else the CLI that it plays would be given is ignored.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.abspath(f"{__file__}/../../.."))  # noqa: PTH100  # pathlib would double the start's time

from fakes.cli.agent import Agent
from fakes.cli.hooks import Hooks
from fakes.cli.record import Record
from fakes.cli.scenario import BadScenario, ScenarioFile

_NAMES = {"--scenario": "scenario", "--record": "record", "--hooks": "hooks", "--settings": "hooks"}


def main() -> None:
    """Play the agent until it ends."""
    files: dict[str, str] = {}
    words = iter(sys.argv[1:])
    for word in words:
        if word == "--version":
            sys.exit(print("9.9.9 (Fake Code)"))
        if word in _NAMES:
            files[_NAMES[word]] = next(words)
    record = Record(files.get("record"))
    try:
        Agent(ScenarioFile(files.get("scenario")), record, Hooks(files.get("hooks"))).main()
    except BadScenario as error:
        record.add("exit", code=2, how=str(error))
        sys.exit(f"{files['scenario']}: {error}")


if __name__ == "__main__":
    main()
