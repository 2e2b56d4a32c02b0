"""One agent's pane, pinned by its id on the agent's own tmux server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import termios
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import psutil

from torch_tasks.errors import AgentUnavailable
from torch_tasks.model.limits import Limits
from torch_tasks.settings import PaneScope
from torch_tasks.system.processes import kill_each
from torch_tasks.workers.tmux.cgroup import NO_LIMITS
from torch_tasks.workers.tmux.control import quote
from torch_tasks.workers.tmux.keyboard import Keyboard
from torch_tasks.workers.tmux.server import AgentServer, TmuxAnswer

END_SECONDS = 5.0
"""How long a server and the pane's program may take to go before they are killed."""

COLLECT_SECONDS = 1.0
"""How long tmux may take to collect the exit code of a program that ended."""

USE_SECONDS = 3
"""How long after a person's last key the pane counts as in use: the program may not have drawn that key yet."""

_SIZE = ("-x", "200", "-y", "50")
"""The screen's size, which is that of ``tmux.conf``."""

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
        "cursor_flag",
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
    """What tmux knows of a pane at one moment."""

    pane_id: str
    pid: int
    dead: bool
    dead_status: int | None
    """The exit code; None until tmux has it, and for a program that a signal ended."""
    in_mode: bool
    cursor_x: int
    cursor_y: int
    cursor_shown: bool
    width: int
    height: int
    attached: int
    """How many terminals of people show it; control clients do not count."""
    used_at: int
    """The second since the epoch in which a person last pressed a key or attached."""
    title: str
    command: str
    cwd: str
    taken_over: bool = False
    """A person who is elsewhere types into it, and Torch does not."""

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read tmux's answer to the ``_LOOK`` format."""
        fields = line.split("\t", 14)
        pane_id, pid, dead, status, mode, x, y, shown, width, height, clients, used, title, command, cwd = fields
        return cls(
            pane_id=pane_id,
            pid=int(pid),
            dead=dead == "1",
            dead_status=int(status) if status else None,
            in_mode=mode not in ("", "0"),
            cursor_x=int(x),
            cursor_y=int(y),
            cursor_shown=shown == "1",
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
        """Whether it is a person's now, or one pressed a key a moment ago, which the program may not have drawn yet."""
        return self.taken_over or (self.attached > 0 and time.time() - self.used_at < USE_SECONDS)


class AgentPane:
    """The terminal an agent lives in. It outlives the process that started it, and this object."""

    def __init__(self, server: AgentServer, pane_id: str) -> None:
        self.server = server
        self.pane_id = pane_id
        self.keyboard = Keyboard()

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
        limits: Limits = NO_LIMITS,
        before: Sequence[str] = (),
        cgroup: Path | None = None,
    ) -> Self:
        """Start a tmux server with one session of this name, whose pane runs the command in ``workdir``.

        The program inherits exactly ``environment`` and what tmux adds, so no argument list shows it. tmux runs the
        shell command ``on_death`` when it notices that the program ended; if it misses that, the next :meth:`look`
        makes it notice. If ``workdir`` vanishes meanwhile, the pane dies and says why. The kernel enforces ``limits``
        in a systemd scope, if ``scope`` allows one, else in a group below ``cgroup``. The words ``before`` run tmux.
        """
        if not workdir.is_dir() or not os.access(workdir, os.X_OK):
            raise AgentUnavailable(f"the agent's folder {workdir} cannot be entered; create it or name another folder")
        server = AgentServer(socket, on_notice=on_notice)
        if server.listener() is not None:
            raise AgentUnavailable(f"a tmux server for {name} already runs at {socket}; adopt its pane or end it first")
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        hook = [("set-hook", "-g", "pane-died", _silent_job(on_death))] if on_death else []
        session = ("new-session", "-d", "-s", name, "-c", _no_format(str(workdir)), "-P", "-F", "#{pane_id}")
        program = ("--", *_launcher(str(workdir), command))
        size = ("resize-window", "-t", f"={name}:", *_SIZE)  # to what it has: from now on no visitor reflows the screen
        # In one tmux call, so that the hook is there even for a program that ends at once.
        starting = (*hook, (*session, *program), size)
        answer = server.launch(
            name, *starting, environment=environment, scope=scope, limits=limits, before=before, cgroup=cgroup
        )
        if not answer.ok:
            raise AgentUnavailable(
                f"tmux could not start a pane for {name} at {socket}: {' '.join(answer.stderr)}; "
                "check that the folder can be written and that no other server holds the socket"
            )
        return cls(server, answer.stdout[0])

    @classmethod
    def adopt(cls, socket: Path, pane_id: str, *, on_notice: Callable[[str], None] | None = None) -> Self | None:
        """Take over a pane that was started before, its program dead or alive; None if there is no such pane."""
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
        # The lines are one record: a folder's name may hold a newline.
        look = PaneLook.parse("\n".join(answer.stdout)) if answer.ok and answer.stdout else None
        return look and replace(look, taken_over=bool(self.keyboard.person))

    def paste(self, text: str) -> None:
        """Give the text to the program as one paste, bracketed if the program asked for that."""
        if text:
            self._make_writable()
            self._do("paste-buffer", "-p", "-r", "-d", "-b", self._stored(text))

    def press(self, *keys: str) -> None:
        """Press the keys, by their tmux names: ``Enter``, ``C-c``, ``Escape``."""
        self._make_writable()
        self._do("send-keys", "--", *keys)

    def type_by_hand(self, text: str = "", keys: Sequence[str] = ()) -> None:
        """Type the characters one by one, as a person would, then press the keys."""
        self._make_writable()
        if text:
            self._do("send-keys", "-l", "--", text)
        if keys:
            self._do("send-keys", "--", *keys)

    def type_unless_used(self, used_at: int, *, text: str = "", keys: Sequence[str] = ()) -> bool:
        """Paste the text and press the keys, unless a person pressed one since ``used_at``; False if a person did.

        tmux checks and types in one step: no key of a person comes between the check, the text and the keys. Nor is it
        typed into a pane that a person has taken over, and none is taken over meanwhile.
        """
        with self.keyboard.unless_taken() as is_free:
            return is_free and self._type_unless_used(used_at, text, keys)

    def _type_unless_used(self, used_at: int, text: str, keys: Sequence[str]) -> bool:
        self._make_writable()
        typing: list[Sequence[str]] = []
        leaving: list[Sequence[str]] = []
        if text:
            buffer = self._stored(text)
            typing.append(("paste-buffer", "-p", "-r", "-d", "-b", buffer, "-t", self.pane_id))
            leaving.append(("delete-buffer", "-b", buffer))
        if keys:
            typing.append(("send-keys", "-t", self.pane_id, "--", *keys))
        typing.append(("display-message", "-p", _TYPED))
        leaving.append(("display-message", "-p", _LEFT))
        unused = f"#{{==:#{{session_activity}},{used_at}}}"
        choice = (unused, _sequence(typing), _sequence(leaving))
        answer = self.server.cmd("if-shell", "-F", *choice, target=self.pane_id, until=(_TYPED, _LEFT))
        return self._check(answer, "to type").stdout[-1:] == [_TYPED]

    def has_unread_keys(self) -> bool:
        """Whether the program has yet to read something that was typed; false if that cannot be seen."""
        tty = self._do("display-message", "-p", "#{pane_tty}").stdout[0]
        try:
            handle = os.open(tty, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        with os.fdopen(handle, "rb", buffering=0), contextlib.suppress(OSError):
            return fcntl.ioctl(handle, termios.FIONREAD, bytes(4)) != bytes(4)
        return False

    def screen(self, history: int = 0) -> str:
        """What the pane shows and ``history`` lines before it: wrapped lines joined, blanks at their ends removed."""
        lines = self._do("capture-pane", "-p", "-J", "-S", str(-history)).stdout
        return "\n".join(line.rstrip() for line in lines).rstrip("\n")

    def drawn(self) -> list[str]:
        """What the pane shows, row by row, with the escape sequences of its colours."""
        return self._do("capture-pane", "-p", "-e").stdout

    def drawn_above(self, lines: int, skipped: int = 0) -> list[str]:
        """So many rows from above the screen, in the same form, without the ``skipped`` ones right above it."""
        kept = int(self._do("display-message", "-p", "#{history_size}").stdout[0])
        last, first = skipped + 1, min(skipped + lines, kept)
        if first < last:
            return []
        rows = self._do("capture-pane", "-p", "-e", "-S", str(-first), "-E", str(-last)).stdout
        return rows + [""] * (first - last + 1 - len(rows))

    def cursor_line(self, look: PaneLook | None = None) -> str:
        """The row in which the cursor is, or was at that look."""
        row = str((look or self._present()).cursor_y)
        lines = self._do("capture-pane", "-p", "-S", row, "-E", row).stdout
        return lines[0].rstrip() if lines else ""

    def transcribe(self, path: Path) -> None:
        """Append the pane's raw output from now on to the file, and to no other file any more."""
        job = f"exec cat >> {shlex.quote(str(path))}"
        self._do("pipe-pane", _no_format(job).replace("%", "%%"))

    def end(self) -> None:
        """End the server and every process in it, and remove its socket file."""
        processes = self._processes()
        self.server.close()
        with contextlib.suppress(AgentUnavailable):  # a hanging server does not answer, and is killed below
            self.server.process(("kill-server",))
        kill_each(_still_alive(processes, END_SECONDS))
        if _still_alive(processes, END_SECONDS):
            raise AgentUnavailable(f"processes at {self.server.socket} survive SIGKILL; look for a hanging disk")
        self.server.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """Disconnect from the pane, which runs on."""
        self.server.close()

    def _collect(self, pid: int) -> None:
        """Make tmux notice that the program ended: 3.3a can miss that, and then has no exit code and runs no hook."""
        server = self.server.listener()
        deadline = time.monotonic() + COLLECT_SECONDS
        while server and _is_uncollected(pid, server) and time.monotonic() < deadline:
            server.send_signal(signal.SIGCHLD)
            time.sleep(0.001)

    def _processes(self) -> list[psutil.Process]:
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

    def _stored(self, text: str) -> str:
        buffer = f"torch-{uuid.uuid4().hex}"
        self._check(self.server.store(buffer, text), "the text")
        return buffer

    def _do(self, command: str, *args: str) -> TmuxAnswer:
        return self._check(self.server.cmd(command, *args, target=self.pane_id), command)

    def _check(self, answer: TmuxAnswer, command: str) -> TmuxAnswer:
        if not answer.ok:
            raise AgentUnavailable(
                f"tmux refused {command} for pane {self.pane_id} at {self.server.socket}: {' '.join(answer.stderr)}; "
                "check whether the agent still runs"
            )
        return answer


def comparable(text: str) -> str:
    """The characters that every terminal shows unchanged, for comparing texts: neither blanks nor wide symbols."""
    return "".join(char for char in unicodedata.normalize("NFC", text) if char.isalnum() or "!" <= char <= "~")


def _still_alive(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """The processes that have not ended in time; a zombie counts as ended, since there may be no init to collect it."""
    deadline = time.monotonic() + seconds
    while (living := [process for process in processes if alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return living


def alive(process: psutil.Process) -> bool:
    """Whether the process exists and is no zombie."""
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
    """The command in ``workdir`` or not at all: tmux by itself takes the home folder if it cannot enter workdir."""
    return ("sh", "-c", 'cd -- "$0" && exec "$@"', workdir, *command)


def _sequence(commands: Iterable[Sequence[str]]) -> str:
    """The commands as one argument of a tmux command that runs them."""
    return " ; ".join(" ".join(map(quote, command)) for command in commands)


def _silent_job(command: str) -> str:
    """A tmux command that runs the shell command, whose output or failure would otherwise cover the pane's screen."""
    job = f"sh -c {shlex.quote(command)} >/dev/null 2>&1 || :"
    return f"run-shell -b {quote(_no_format(job))}"


def _no_format(text: str) -> str:
    """The text, escaped for a place where tmux expands ``#{…}``."""
    return text.replace("#", "##")
