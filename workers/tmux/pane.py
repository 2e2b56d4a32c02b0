"""One agent's pane, pinned by its id on the agent's own tmux server."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from torch_tasks.errors import AgentUnavailable
from torch_tasks.model.limits import Limits
from torch_tasks.settings import PaneScope
from torch_tasks.workers.tmux.cgroup import NONE
from torch_tasks.workers.tmux.control import quote
from torch_tasks.workers.tmux.server import AgentServer, TmuxAnswer

END_SECONDS = 5.0
"""How long a server and the pane's program may take to go before they are killed."""

COLLECT_SECONDS = 1.0
"""How long tmux may take to collect the exit code of a program that ended."""

USE_SECONDS = 3
"""So long after a person's last key the program may not have drawn it, and the next one may come."""

_LOOK = "\t".join(
    f"#{{{name}}}"
    for name in (
        "pane_id",
        "pane_pid",
        "pane_dead",
        "pane_dead_status",
        "pane_in_mode",
        "cursor_x",
        "cursor_y",
        "pane_width",
        "pane_height",
        "session_attached_list",
        "session_activity",
        "pane_title",
        "pane_current_command",
        "pane_current_path",
    )
)


#: What tmux answers when it has typed, and when it has not.
_TYPED, _LEFT = "typed", "left alone"


@dataclass(frozen=True)
class PaneLook:
    """What tmux knows of a pane at one moment.

    ``dead_status`` is the exit code; None while there is none yet, and for a program that a signal ended.
    ``attached`` counts the terminals of people, not control clients; ``used_at`` is the second since the epoch in which
    a key was last pressed in one, or one was attached.
    """

    pane_id: str
    pid: int
    dead: bool
    dead_status: int | None
    in_mode: bool
    cursor_x: int
    cursor_y: int
    width: int
    height: int
    attached: int
    used_at: int
    title: str
    command: str
    cwd: str

    @classmethod
    def parse(cls, line: str) -> Self:
        """A look from tmux's answer to the ``_LOOK`` format."""
        pane_id, pid, dead, status, mode, x, y, width, height, clients, used, title, command, cwd = line.split("\t", 13)
        return cls(
            pane_id=pane_id,
            pid=int(pid),
            dead=dead == "1",
            dead_status=int(status) if status else None,
            in_mode=mode not in ("", "0"),
            cursor_x=int(x),
            cursor_y=int(y),
            width=int(width),
            height=int(height),
            # a client without a terminal is named client-<pid>
            attached=sum(not name.startswith("client-") for name in clients.split(",") if name),
            used_at=int(used),
            title=title,
            command=command,
            cwd=cwd,
        )

    @property
    def in_use(self) -> bool:
        """A person pressed keys a moment ago: they may not be drawn yet."""
        return self.attached > 0 and time.time() - self.used_at < USE_SECONDS


class AgentPane:
    """The terminal an agent lives in. It outlives the process that started it, and this object."""

    def __init__(self, server: AgentServer, pane_id: str) -> None:
        self.server = server
        self.pane_id = pane_id

    @classmethod
    def start(
        cls,
        socket: Path,
        name: str,
        command: Sequence[str],
        *,
        workdir: Path,
        environment: Mapping[str, str],
        on_death: str | None = None,
        on_notice: Callable[[str], None] | None = None,
        scope: PaneScope = "never",
        limits: Limits = NONE,
        cgroup: Path | None = None,
    ) -> Self:
        """A new server, with one session of this name, whose pane runs the command in ``workdir``.

        The program gets exactly ``environment`` and what tmux adds; it is inherited, so no argument list shows it.
        ``on_death`` is a shell command that tmux runs as soon as it notices that the program ended; what it misses is
        made up for by the next :meth:`look`. The program never runs in another folder: if ``workdir`` vanishes
        meanwhile, the pane dies and says why. ``scope`` says whether systemd gives the server a scope of its own,
        which keeps its ``limits``; without one a group below ``cgroup`` does.
        """
        _require_folder(workdir)
        server = AgentServer(socket, on_notice=on_notice)
        if server.listener() is not None:
            raise AgentUnavailable(f"a tmux server for {name} already runs at {socket}; adopt its pane or end it first")
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        hook = [("set-hook", "-g", "pane-died", _silent_job(on_death))] if on_death else []
        session = ("new-session", "-d", "-s", name, "-c", _no_format(str(workdir)), "-P", "-F", "#{pane_id}")
        program = ("--", *_launcher(str(workdir), command))
        size = ("set-option", "-w", "-t", f"={name}:", "window-size", "manual")  # a visitor never reflows the screen
        # In one go, so that even a program that ends at once finds the hook.
        starting = (*hook, (*session, *program), size)
        answer = server.launch(name, *starting, environment=environment, scope=scope, limits=limits, cgroup=cgroup)
        if not answer.ok:
            raise AgentUnavailable(
                f"tmux could not start a pane for {name} at {socket}: {' '.join(answer.stderr)}; "
                "look whether that folder can be written and no other server holds the socket"
            )
        return cls(server, answer.stdout[0])

    @classmethod
    def adopt(cls, socket: Path, pane_id: str, *, on_notice: Callable[[str], None] | None = None) -> Self | None:
        """A pane that was started before, its program dead or alive; None if there is no such pane."""
        pane = cls(AgentServer(socket, on_notice=on_notice), pane_id)
        if pane.look() is not None:
            return pane
        pane.close()
        return None

    def look(self) -> PaneLook | None:
        """The pane as it is now; None if it or its server is gone."""
        look = self._glance()
        if look is None or not look.dead or look.dead_status is not None:
            return look
        self._collect(look.pid)
        return self._glance()

    def _glance(self) -> PaneLook | None:
        answer = self.server.cmd(
            "list-panes", "-f", f"#{{==:#{{pane_id}},{self.pane_id}}}", "-F", _LOOK, target=self.pane_id
        )
        # A folder's name may hold a newline: the answer is one record, whatever its lines.
        return PaneLook.parse("\n".join(answer.stdout)) if answer.ok and answer.stdout else None

    def paste(self, text: str) -> None:
        """Hand the text to the program as one paste, framed if the program asked for frames."""
        if not text:
            return
        self._make_writable()
        buffer = f"torch-{uuid.uuid4().hex}"
        self._check(self.server.store(buffer, text), "the text")
        self._do("paste-buffer", "-p", "-r", "-d", "-b", buffer)

    def press(self, *keys: str) -> None:
        """Press the keys, by their tmux names: ``Enter``, ``C-c``, ``Escape``."""
        self._make_writable()
        self._do("send-keys", "--", *keys)

    def type_unless_used(self, used_at: int, *, text: str = "", keys: Sequence[str] = ()) -> bool:
        """Paste the text and press the keys, unless a person pressed one since; False if a person did.

        tmux looks and types in one go: no key of a person comes between that look, the text, and the keys.
        """
        self._make_writable()
        typing: list[Sequence[str]] = []
        leaving: list[Sequence[str]] = []
        if text:
            buffer = f"torch-{uuid.uuid4().hex}"
            self._check(self.server.store(buffer, text), "the text")
            typing.append(("paste-buffer", "-p", "-r", "-d", "-b", buffer, "-t", self.pane_id))
            leaving.append(("delete-buffer", "-b", buffer))
        if keys:
            typing.append(("send-keys", "-t", self.pane_id, "--", *keys))
        typing.append(("display-message", "-p", _TYPED))
        leaving.append(("display-message", "-p", _LEFT))
        unused = f"#{{==:#{{session_activity}},{used_at}}}"
        choice = (unused, _in_a_row(typing), _in_a_row(leaving))
        answer = self.server.cmd("if-shell", "-F", *choice, target=self.pane_id, until=(_TYPED, _LEFT))
        return self._check(answer, "to type").stdout[-1:] == [_TYPED]

    def screen(self, history: int = 0) -> str:
        """What the pane shows, wrapped lines joined, with so many lines of history; no blanks at the ends of lines."""
        lines = self._do("capture-pane", "-p", "-J", "-S", str(-history)).stdout
        return "\n".join(line.rstrip() for line in lines).rstrip("\n")

    def drawn(self) -> list[str]:
        """What the pane shows, row by row, with the escape sequences of its colours."""
        return self._do("capture-pane", "-p", "-e").stdout

    def cursor_line(self) -> str:
        """The line the cursor is on."""
        look = self._present()
        row = str(look.cursor_y)
        lines = self._do("capture-pane", "-p", "-S", row, "-E", row).stdout
        return lines[0].rstrip() if lines else ""

    def transcribe(self, path: Path) -> None:
        """Append all further output of the pane, raw, to the file; an earlier transcript ends."""
        job = f"exec cat >> {shlex.quote(str(path))}"
        self._do("pipe-pane", _no_format(job).replace("%", "%%"))

    def end(self) -> None:
        """End the server with all that runs in it. Afterwards neither its process nor its socket file is there."""
        processes = self._processes()
        self.server.close()
        with contextlib.suppress(AgentUnavailable):  # a server that hangs is killed below
            self.server.process(("kill-server",))
        for process in _still_alive(processes, END_SECONDS):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if _still_alive(processes, END_SECONDS):
            raise AgentUnavailable(f"what runs at {self.server.socket} survives SIGKILL; look for a hanging disk")
        self.server.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the pane; it lives on."""
        self.server.close()

    def _collect(self, pid: int) -> None:
        """Make tmux notice that the program ended: 3.3a can miss it, and then has no exit code and runs no hook."""
        server = self.server.listener()
        deadline = time.monotonic() + COLLECT_SECONDS
        while server and _is_uncollected(pid, server) and time.monotonic() < deadline:
            server.send_signal(signal.SIGCHLD)
            time.sleep(0.001)

    def _processes(self) -> list[psutil.Process]:
        """The server and the programs of its panes, as they are now."""
        server = self.server.listener()
        with contextlib.suppress(psutil.NoSuchProcess):
            return [server, *server.children(recursive=True)] if server else []
        return []

    def _present(self) -> PaneLook:
        look = self.look()
        if look is None:
            raise AgentUnavailable(f"pane {self.pane_id} at {self.server.socket} is gone; start its program again")
        return look

    def _make_writable(self) -> None:
        look = self._present()
        if look.dead:
            raise AgentUnavailable(
                f"the program in pane {self.pane_id} at {self.server.socket} has ended"
                f"{'' if look.dead_status is None else f' with exit code {look.dead_status}'}; start it again"
            )
        if look.in_mode:  # copy-mode would take the text as its own keys
            self._do("copy-mode", "-q")

    def _do(self, command: str, *args: str) -> TmuxAnswer:
        return self._check(self.server.cmd(command, *args, target=self.pane_id), command)

    def _check(self, answer: TmuxAnswer, command: str) -> TmuxAnswer:
        if not answer.ok:
            raise AgentUnavailable(
                f"tmux refused {command} for pane {self.pane_id} at {self.server.socket}: {' '.join(answer.stderr)}; "
                "look whether the agent still lives"
            )
        return answer


def comparable(text: str) -> str:
    """The characters that no terminal changes, to compare texts by: without blanks, however wide or joined they are."""
    return "".join(char for char in unicodedata.normalize("NFC", text) if char.isalnum() or "!" <= char <= "~")


def _require_folder(workdir: Path) -> None:
    if not workdir.is_dir() or not os.access(workdir, os.X_OK):
        raise AgentUnavailable(f"the agent's folder {workdir} cannot be entered; create it, or name another folder")


def _still_alive(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that have not ended when the time is over; a zombie has, even where no init collects it."""
    deadline = time.monotonic() + seconds
    while (living := [process for process in processes if alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return living


def alive(process: psutil.Process) -> bool:
    """The process can still do something."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_uncollected(pid: int, parent: psutil.Process) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and process.ppid() == parent.pid
    except psutil.NoSuchProcess:
        return False


def _launcher(workdir: str, command: Sequence[str]) -> tuple[str, ...]:
    """The command as tmux shall run it. Left alone, tmux silently takes the home folder if it cannot enter workdir."""
    return ("sh", "-c", 'cd -- "$0" && exec "$@"', workdir, *command)


def _in_a_row(commands: Iterable[Sequence[str]]) -> str:
    """Commands as one argument of a tmux command that runs them."""
    return " ; ".join(" ".join(map(quote, command)) for command in commands)


def _silent_job(command: str) -> str:
    """A tmux command that runs the shell command; what a job says or its failure would cover the pane's screen."""
    job = f"sh -c {shlex.quote(command)} >/dev/null 2>&1 || :"
    return f"run-shell -b {quote(_no_format(job))}"


def _no_format(text: str) -> str:
    """The text, for a place where tmux expands ``#{…}``."""
    return text.replace("#", "##")
