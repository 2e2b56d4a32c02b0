"""A control-mode client of one tmux server, which runs commands without starting a process for each."""

from __future__ import annotations

import contextlib
import logging
import re
import socket as sockets
import subprocess
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from torch_tasks.errors import AgentUnavailable
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""A tmux server answers in less than a millisecond; after this long it hangs."""

_BEGIN = re.compile(r"%begin (\d+ \d+ (\d+))")
_FROM_OUR_INPUT = "1"


class ControlLost(AgentUnavailable):
    """The control client ended. If the command was ``sent`` before, tmux may have run it or not."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True)
class CommandReply:
    """tmux's reply to one command: its output, or its error if not ``ok``."""

    ok: bool
    lines: list[str]


def quote(word: str) -> str:
    """The word in one line, quoted for tmux's command parser."""
    return "'" + word.replace("'", r"'\''").replace("\n", "'\"\\n\"'") + "'"


class ControlClient:
    """An attached ``tmux -C`` client that never resizes a pane and reads no pane's output.

    Any thread may call :meth:`run`; commands go one at a time. The reader thread calls ``on_notice`` with every
    notification, and with ``%exit …`` when the stream ends without :meth:`close`; it must neither block nor call
    :meth:`run`.
    """

    def __init__(self, socket: Path, on_notice: Callable[[str], None] | None = None) -> None:
        self._socket = socket
        self._on_notice = on_notice
        self._lock = threading.Lock()
        self._replies: SimpleQueue[CommandReply | None] = SimpleQueue()
        self._attached = threading.Event()
        self._ended = threading.Event()
        # Not pipes: tmux passes the client's ends to its server, so a dead client's pipe may stay open.
        # A socket can be shut down from here.
        self._link, far_end = sockets.socketpair()
        self._output = self._link.makefile("rb")
        with far_end:
            self._process = subprocess.Popen(
                # -u: a client without it gets "_" for every character outside ASCII when the locale is C.
                ["tmux", "-u", "-S", str(socket), "-C", "attach-session", "-f", "no-output,ignore-size"],
                stdin=far_end.fileno(),
                stdout=far_end.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the worker's terminal is not for this client
            )
        self._farewell = "%exit"
        self._reader = Loop(f"tmux {socket.name}", self._read, until=lambda: self.ended)
        self._reader.start()
        if not self._attached.wait(ANSWER_SECONDS) or self.ended:
            self.close()
            raise ControlLost(f"no tmux server accepts a client at {socket}; is the agent running?", sent=False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def run(self, command: str, *args: str, until: Collection[str] = ()) -> CommandReply:
        """Run one tmux command and wait for its answer.

        A command that runs others, as ``if-shell`` does, has an answer for each of them: the reply is the first answer
        that holds a line of ``until``.
        """
        line = " ".join(map(quote, (command, *args)))
        with self._lock:
            self._send(line, command)
            try:
                reply = self._replies.get(timeout=ANSWER_SECONDS)
                while until and reply and reply.ok and not set(reply.lines) & set(until):
                    reply = self._replies.get(timeout=ANSWER_SECONDS)
            except Empty:
                self._cut()  # else the next command would get this one's late answer
                raise AgentUnavailable(
                    f"tmux did not answer {command} within {ANSWER_SECONDS:g} s at {self._socket}; "
                    "check whether its server is stopped or the machine is overloaded"
                ) from None
        if reply is None:
            raise ControlLost(
                f"the tmux client at {self._socket} ended during {command}; whether tmux ran it is not known", sent=True
            )
        return reply

    def close(self) -> None:
        """End the client and its thread; the server and its panes run on."""
        self._on_notice = None
        with contextlib.suppress(OSError):
            self._link.shutdown(sockets.SHUT_WR)  # the end of its input makes the client detach
        self._reader.join(1.0)
        if self._reader.is_alive:
            self._cut()
            self._reader.join()
        self._link.close()

    def _cut(self) -> None:
        self._process.kill()
        with contextlib.suppress(OSError):
            self._link.shutdown(sockets.SHUT_RDWR)

    def _send(self, line: str, command: str) -> None:
        try:
            if self.ended:
                raise BrokenPipeError
            self._link.sendall(line.encode() + b"\n")
        except OSError:
            self._cut()
            self._reader.join()  # so that :attr:`ended` is true before the caller gets the error
            raise ControlLost(f"the tmux client at {self._socket} ended before {command}", sent=False) from None

    def _read(self) -> None:
        """Read one line, with the block that it begins, or the end of the stream."""
        line = self._next_line()
        if line is None:
            self._end()
        elif begin := _BEGIN.fullmatch(line):
            reply = self._block(begin[1])
            if begin[2] == _FROM_OUR_INPUT and reply is not None:
                self._replies.put(reply)
        elif line.startswith("%exit"):
            self._farewell = line
        else:
            if line.startswith("%session-changed"):  # tmux sends it to a client that has just attached
                self._attached.set()
            self._notify(line)

    def _end(self) -> None:
        self._output.close()
        self._process.wait()
        self._ended.set()
        self._attached.set()
        self._replies.put(None)
        self._notify(self._farewell)

    def _next_line(self) -> str | None:
        try:
            raw = self._output.readline()
        except ConnectionResetError:  # the client was killed with a command unread
            return None
        return raw.decode(errors="backslashreplace").removesuffix("\n") if raw else None

    def _block(self, number: str) -> CommandReply | None:
        """Read to the end of the block with this number; a screen that shows a mere ``%end`` does not end it."""
        lines: list[str] = []
        ends = {f"%end {number}": True, f"%error {number}": False}
        for line in iter(self._next_line, None):
            if line in ends:
                return CommandReply(ends[line], lines)
            lines.append(line)
        return None

    def _notify(self, line: str) -> None:
        callback = self._on_notice
        if callback is None:
            return
        try:
            callback(line)
        except Exception:  # the reader thread must survive, or no command gets an answer
            log.exception("the listener for tmux notices failed on %r", line)
