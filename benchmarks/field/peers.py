"""The senders of other tools, each as its own code sends, where the tool is installed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.field.findings import AGENT_DECK, CAO, NOT_INSTALLED
from benchmarks.harness import GRACE_SECONDS, READY_SECONDS, await_true, said
from benchmarks.old_script import OldScript

# The program of CAO's server that sends, with the words that its terminals send with; every send in its own thread.
CAO_SENDER = """
import json, socketserver, sys
from cli_agent_orchestrator.clients.tmux import TmuxClient
from cli_agent_orchestrator.providers.claude_code import ClaudeCodeProvider as Claude

provider = Claude("field", "field", "agent")
how = dict(enter_count=provider.paste_enter_count, submit_delay=provider.paste_submit_delay)

class Send(socketserver.StreamRequestHandler):
    def handle(self):
        session, words = json.loads(self.rfile.readline())
        try:
            TmuxClient().send_keys(session, "agent", words, force_bracketed_paste=True, **how)
            self.wfile.write(b"sent")
        except Exception as error:
            print(error, file=sys.stderr, flush=True)

socketserver.ThreadingUnixStreamServer(sys.argv[1], Send).serve_forever()
"""


class CaoSession(OldScript):
    """A session whose prompts CAO sends: it reports success unless tmux refuses."""

    def __init__(self, folder: Path, session: str = "prod") -> None:
        super().__init__(folder, session)
        self.socket = folder / f"tmux-{os.getuid()}" / "default"  # CAO knows no other
        self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        self._door = folder / f"{session}.door"
        self._home = folder

    def __enter__(self) -> Self:
        super().__enter__()
        env = {**os.environ, "HOME": str(self._home), "TMUX_TMPDIR": str(self._home)}
        env.pop("TMUX", None)
        with (self._home / f"{self.session}.log").open("wb") as log:
            argv = [str(_cao()), "-c", CAO_SENDER, str(self._door)]
            self._sender = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
        await_true(self._door.exists, READY_SECONDS, "CAO's sender is there")
        return self

    def __exit__(self, *why: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._sender.terminate()
        self._sender.wait(GRACE_SECONDS)
        super().__exit__(*why)

    def send(self, words: str) -> bool:
        """What CAO did, and whether it says that the prompt was sent."""
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(str(self._door))
            door.sendall(json.dumps([self.session, words]).encode() + b"\n")
            return door.recv(16) == b"sent"


def installed() -> dict[str, Callable[..., OldScript]]:
    """The tools that are installed here, with what sends as they do."""
    return {CAO: CaoSession} if _cao() else {}


def missing() -> dict[str, str]:
    """Those that are not tried, and why."""
    why = {} if _cao() else {CAO: NOT_INSTALLED}
    return {**why, AGENT_DECK: "installed, not tried" if shutil.which("agent-deck") else NOT_INSTALLED}


def versions() -> dict[str, str]:
    """Each tool's version."""
    found = missing()
    if python := _cao():
        program = "from importlib.metadata import version; print(version('cli-agent-orchestrator'))"
        found[CAO] = said(str(python), "-c", program)
    return found


def _cao() -> Path | None:
    """The Python that CAO is installed in."""
    folder = os.environ.get("BENCH_CAO")
    command = shutil.which("cao", path=str(Path(folder) / "bin") if folder else None)
    if folder and not command:
        raise FileNotFoundError(f"BENCH_CAO: there is no bin/cao in {folder}; name the environment it is installed in")
    return Path(command).resolve().with_name("python") if command else None
