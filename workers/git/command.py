"""Runs git in one folder: nobody is asked anything, and nothing takes for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch_tasks.errors import GitRefused

#: How long git may take where no hook of the user's runs.
QUICK = 30.0
#: As much of what git and its hooks say as is worth telling.
_TAIL = 1500
#: What another git left in the environment speaks of another tree than ours.
_FOREIGN = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_LITERAL_PATHSPECS",
)
# Nothing is tidied up in passing, and looking disturbs no agent that commits at this moment.
_ALWAYS = ("--no-optional-locks", "-c", "gc.auto=0", "-c", "maintenance.auto=false")
_NOBODY_THERE = {"GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true", "GIT_PAGER": "cat", "LC_ALL": "C"}


class Git:
    """Git in one folder, with this index instead of the tree's own if one is named."""

    def __init__(self, folder: Path, index: Path | None = None) -> None:
        self._folder = folder
        self._variables = {"GIT_INDEX_FILE": str(index)} if index else {}

    def run(
        self,
        *words: str,
        stdin: bytes = b"",
        seconds: float = QUICK,
        settings: Sequence[str] = (),
    ) -> bytes:
        """What git answers; :class:`GitRefused`, with its words, if it fails or takes longer.

        Everything it started ends with it when the time is over.
        """
        argv = ["git", *_ALWAYS, *(word for one in settings for word in ("-c", one)), *words]
        try:
            code, answer, wrong = self._end(argv, stdin, seconds)
        except OSError as error:
            raise GitRefused(f"git cannot run in {self._folder}: {error.strerror or error}") from None
        if code == 0:
            return answer
        said = (answer[-_TAIL:] + wrong[-_TAIL:]).decode(errors="replace").strip()
        how = f"took longer than {seconds:g} s and was ended" if code is None else f"ended with exit code {code}"
        raise GitRefused(f"git {words[0]} in {self._folder} {how}" + (f": {said}" if said else ""))

    def _end(self, argv: Sequence[str], stdin: bytes, seconds: float) -> tuple[int | None, bytes, bytes]:
        """How the command ends, and what it says.

        Files, not pipes: what a hook leaves in the background must not hold us up. A session of its own: who ends
        this worker does not end a commit half way.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrong:
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                argv,
                cwd=self._folder,
                env=self._environment(),
                stdin=given,
                stdout=said,
                stderr=wrong,
                start_new_session=True,
            )
            code = _ended(process, seconds)
            said.seek(0)
            wrong.seek(0)
            return code, said.read(), wrong.read()

    def ask(self, *words: str) -> str | None:
        """What git answers, without its line's end; nothing if it fails."""
        try:
            return os.fsdecode(self.run(*words)).removesuffix("\n")
        except GitRefused:
            return None

    def agrees(self, *words: str) -> bool:
        """Git answers with success."""
        return self.ask(*words) is not None

    def _environment(self) -> Mapping[str, str]:
        ours = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        return {**ours, **_NOBODY_THERE, **self._variables}


def _ended(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code, or nothing if it was ended because its time was over."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
