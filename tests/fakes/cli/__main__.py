"""``python tests/fakes/cli/__main__.py [--scenario FILE] [--record FILE] [--hooks FILE]``.

It needs a terminal. ``--settings`` is another name of ``--hooks``; what else the CLI that it plays is given is ignored.
"""

from __future__ import annotations

import os
import sys
import uuid

sys.path.insert(0, os.path.abspath(f"{__file__}/../../.."))  # noqa: PTH100  # pathlib would double the start's time

from fakes.cli.agent import Agent
from fakes.cli.data import BadScenario
from fakes.cli.hooks import Hooks
from fakes.cli.record import Record
from fakes.cli.scenario import ScenarioFile

_NAMES = {
    "--scenario": "scenario",
    "--record": "record",
    "--hooks": "hooks",
    "--settings": "hooks",
    "--session-id": "session",
    "--resume": "session",
}


def main() -> None:
    """Play the agent until it ends."""
    given: dict[str, str] = {}
    words = iter(sys.argv[1:])
    for word in words:
        if word == "--version":
            sys.exit(print("9.9.9 (Fake Code)"))
        if word in _NAMES:
            given[_NAMES[word]] = next(words)
    record = Record(given.get("record"))
    try:
        session = given.get("session") or str(uuid.uuid4())
        Agent(ScenarioFile(given.get("scenario")), record, Hooks(given.get("hooks")), session).main()
    except BadScenario as error:
        record.add("exit", code=2, how=str(error))
        sys.exit(f"{given['scenario']}: {error}")


if __name__ == "__main__":
    main()
