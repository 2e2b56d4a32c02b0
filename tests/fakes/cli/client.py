"""The test's side of the fake agent: writes its scenario, starts nothing itself, reads its record."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from fakes.cli.scenario import Scenario

_MAIN = Path(__file__).with_name("__main__.py")


class FakeCli:
    """One fake agent with its files in the folder; :attr:`argv` runs it under this name."""

    def __init__(
        self, folder: Path, scenario: Scenario | None = None, *, name: str = "fake-cli", hooks: Path | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._scenario = folder / "scenario.json"
        self._record = folder / "record.jsonl"
        self._read = 0
        self._known: list[dict[str, Any]] = []
        self.play(scenario or Scenario())
        python = folder / "bin" / name  # so that tmux and ps call it by its name
        python.parent.mkdir(exist_ok=True)
        python.unlink(missing_ok=True)
        python.symlink_to(Path(sys.executable).resolve())
        self.argv = [str(python), "-IS", str(_MAIN), "--scenario", str(self._scenario), "--record", str(self._record)]
        if hooks:
            self.argv += ["--hooks", str(hooks)]
        #: The same as one executable file, which takes further arguments.
        self.program = folder / name
        self.program.write_text(f'#!/bin/sh\nexec {shlex.join(self.argv)} "$@"\n')
        self.program.chmod(0o755)

    def play(self, scenario: Scenario) -> None:
        """Replace the scenario; it holds from now on."""
        new = self._scenario.with_suffix(".new")
        new.write_text(scenario.dump())
        os.replace(new, self._scenario)  # noqa: PTH105

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        """The records so far, of these kinds or of all."""
        if self._record.exists():
            with self._record.open("rb") as file:
                file.seek(self._read)
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._known += map(json.loads, data[:whole].splitlines())
            self._read += whole
        return [record for record in self._known if not kinds or record["kind"] in kinds]

    def submitted(self) -> list[str]:
        """The prompts that the model received, exactly."""
        return [record["text"] for record in self.records("submitted")]

    def bytes(self) -> bytes:
        """Every byte that it read."""
        return "".join(record["data"] for record in self.records("bytes")).encode("latin-1")

    def local(self) -> list[str]:
        """What ran on this machine and should not have."""
        return [record["text"] for record in self.records("ran_locally", "command")]

    def keys(self) -> list[str]:
        """The keys that fell into a dialog."""
        return [record["key"] for record in self.records("key_in_modal")]
