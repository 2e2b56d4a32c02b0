"""One agent's tmux server: commands go through a control client, or through a process where they must."""

from __future__ import annotations

import logging
import re
import shutil
import socket as sockets
import struct
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from torch_tasks.errors import AgentUnavailable, TmuxMissing
from torch_tasks.model.limits import Limits
from torch_tasks.settings import PaneScope
from torch_tasks.state_folder import require_short
from torch_tasks.workers.tmux.cgroup import NO_LIMITS, group_words, scope_words
from torch_tasks.workers.tmux.control import ANSWER_SECONDS, ControlClient, ControlLost

log = logging.getLogger(__name__)

CONFIG = Path(__file__).with_name("tmux.conf")
OLDEST_TMUX = (3, 2)
_SHORT_PASTE = 4096
_BY_PROCESS = frozenset(
    {
        # they need a server that may not be there, or end the one that answers
        "new-session",
        "start-server",
        "has-session",
        "kill-server",
        # they use the client's own terminal, input or output
        "attach-session",
        "load-buffer",
        "save-buffer",
        "show-buffer",  # a control client gets it with escapes
        # they may block, and would block every other command with them
        "wait-for",
        "run-shell",
    }
)
_READS = ("display-message", "capture-pane", "list-", "show-")


@dataclass(frozen=True)
class TmuxAnswer:
    """tmux's answer to a command, in the form that libtmux expects."""

    cmd: Sequence[str]
    stdout: list[str]
    stderr: list[str]
    returncode: int

    @property
    def ok(self) -> bool:
        return self.returncode == 0


class AgentServer:
    """The tmux server behind one socket. Its control client connects when first needed, and again after it ended."""

    def __init__(self, socket: Path, *, on_notice: Callable[[str], None] | None = None) -> None:
        self.socket = require_short(socket)
        self._on_notice = on_notice
        self._client: ControlClient | None = None
        self._connecting = threading.Lock()

    def cmd(self, cmd: str, *args: Any, target: str | int | None = None, until: Collection[str] = ()) -> TmuxAnswer:
        """Run a tmux command; the answer also holds tmux's refusal. For ``until`` see :meth:`ControlClient.run`.

        A command that tmux may have run already is repeated only if it changes nothing, else :class:`ControlLost`.
        """
        words = [cmd, *(() if target is None else ("-t", str(target))), *map(str, args)]
        if cmd in _BY_PROCESS:
            return self.process(words)
        try:
            return self._by_control(words, until)
        except ControlLost as lost:
            if lost.sent and not cmd.startswith(_READS):
                raise
            return self._by_control(words, until)

    def store(self, buffer: str, text: str) -> TmuxAnswer:
        """Put the text into a paste buffer, without showing it in any process's arguments."""
        short = len(text) <= _SHORT_PASTE and text.replace("\n", "").isprintable()
        if short and self._connected() is not None:
            return self.cmd("set-buffer", "-b", buffer, "--", text)
        return self.process(("load-buffer", "-b", buffer, "-"), stdin=text)

    def process(
        self,
        *commands: Sequence[str],
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> TmuxAnswer:
        """Run the commands one after the other in one tmux process, which the words ``before`` start."""
        argv = [*before, _tmux(), "-u", "-S", str(self.socket), "-f", str(CONFIG)]
        for place, command in enumerate(commands):
            argv += [*([";"] if place else []), *map(_argument, command)]
        try:
            given = (stdin or "").encode()
            done = subprocess.run(
                argv, input=given, capture_output=True, env=environment, timeout=ANSWER_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise AgentUnavailable(
                f"tmux {commands[0][0]} did not end within {ANSWER_SECONDS:g} s at {self.socket}; "
                "check whether its server is stopped or the machine is overloaded"
            ) from None
        return TmuxAnswer(argv, _lines(done.stdout), _lines(done.stderr), done.returncode)

    def launch(
        self,
        name: str,
        *commands: Sequence[str],
        environment: Mapping[str, str],
        scope: PaneScope = "never",
        limits: Limits = NO_LIMITS,
        before: Sequence[str] = (),
        cgroup: Path | None = None,
    ) -> TmuxAnswer:
        """As :meth:`process`, for the commands that start the agent's server, in its scope or group if it gets one."""
        words = scope_words(name, scope, limits) or group_words(name, limits, cgroup)
        if not words:
            return self.process(*commands, environment=environment, before=before)
        try:
            answer = self.process(*commands, environment=environment, before=(*words, *before))
        except AgentUnavailable as error:  # systemd does not answer
            answer = TmuxAnswer(words, [], [str(error)], 1)
        if answer.ok or scope == "always" or self.listener() is not None:
            return answer
        reason = " ".join(answer.stderr)
        log.warning("%s: no scope of its own, so stopping this worker's unit may end its pane: %s", name, reason)
        if group := words[0] == "systemd-run" and group_words(name, limits, cgroup):
            return self.process(*commands, environment=environment, before=(*group, *before))
        return self.process(*commands, environment=environment, before=before)

    def listener(self) -> psutil.Process | None:
        """The server's process as the kernel knows it, even if it hangs; None for a missing or stale socket."""
        with sockets.socket(sockets.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
                peer = connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
                return psutil.Process(struct.unpack("3i", peer)[0])
            except (FileNotFoundError, ConnectionRefusedError, psutil.NoSuchProcess):
                return None

    def close(self) -> None:
        """End the control client; the server runs on, and a later command connects again."""
        with self._connecting:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _by_control(self, words: Sequence[str], until: Collection[str] = ()) -> TmuxAnswer:
        client = self._connected()
        if client is None:
            return self.process(words)
        reply = client.run(*words, until=until)
        lines = _without_blank_end(reply.lines)
        return TmuxAnswer(words, lines, [], 0) if reply.ok else TmuxAnswer(words, [], lines, 1)

    def _connected(self) -> ControlClient | None:
        with self._connecting:
            if self._client is not None and self._client.ended:
                self._client.close()
                self._client = None
            if self._client is None and self.listener() is not None:
                try:
                    self._client = ControlClient(self.socket, self._on_notice)
                except ControlLost:
                    return None
            return self._client


def require_tmux() -> None:
    """Raise :class:`TmuxMissing` unless this machine's tmux can host agents."""
    version = subprocess.run([_tmux(), "-V"], capture_output=True, text=True, check=False).stdout.strip()
    number = re.search(r"(\d+)\.(\d+)", version)
    if number and (int(number[1]), int(number[2])) < OLDEST_TMUX:
        raise TmuxMissing(f"{version} is too old to host agents; install tmux 3.2 or newer (`apt install tmux`)")


def _tmux() -> str:
    path = shutil.which("tmux")
    if path is None:
        raise TmuxMissing("there is no tmux on PATH, and agents run in it; install it (`apt install tmux`)")
    return path


def _argument(word: str) -> str:
    """The word for the command line of tmux, which reads a ``;`` at its end as the end of the command."""
    return word.removesuffix(";") + r"\;" if word.endswith(";") else word


def _lines(output: bytes) -> list[str]:
    return _without_blank_end(output.decode(errors="backslashreplace").split("\n"))


def _without_blank_end(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    return lines
