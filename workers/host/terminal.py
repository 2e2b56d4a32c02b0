"""The agent's program in its pane: started, adopted, interrupted; the bell that it rings, and its screen, published."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from torch_tasks import keys
from torch_tasks.errors import AgentUnavailable
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.limits import Limits
from torch_tasks.monitoring.screens import LOOK_SECONDS, PIECE_BYTES, WATCHED_SECONDS
from torch_tasks.settings import Settings
from torch_tasks.state_folder import TMUX
from torch_tasks.system.loops import Loop
from torch_tasks.workers.programs.kind import AgentKind, login_hint
from torch_tasks.workers.tmux.cgroup import remove_group
from torch_tasks.workers.tmux.pane import AgentPane
from torch_tasks.workers.tmux.server import AgentServer

log = logging.getLogger(__name__)

#: For so long the start has shown that it wants a login before a person is asked for it.
_LOGIN_SECONDS = 3.0
#: Variables of this process that are no business of the agent's.
_WITHHELD = ("CELERY_", "FLOWER_", "TMUX")
#: How long killed processes may take to go.
_GONE_SECONDS = 5.0


class Terminal:
    """One agent's pane on its own tmux server; the program in it outlives this process."""

    def __init__(self, folder: Path, kind: AgentKind, bell: Bell, settings: Settings) -> None:
        self._folder = folder
        self._kind = kind
        self._bell = bell
        self._settings = settings
        self._pane: AgentPane | None = None
        self._session: int | None = None
        self._login_asked_at: float | None = None
        #: Its program does nothing before a person has logged in.
        self.wants_login = False

    @property
    def pane(self) -> AgentPane:
        """The pane; only after :meth:`adopt` or :meth:`start`."""
        if self._pane is None:
            raise AgentUnavailable(f"agent {self._kind.agent_id} has no pane")
        return self._pane

    @property
    def limits(self) -> Limits:
        """What its programs may use together."""
        return self._kind.spec.or_else(self._settings.agent_limits)

    @property
    def server_pid(self) -> int | None:
        """The process of the tmux server, if it is there."""
        server = self._pane.server.listener() if self._pane else None
        return server.pid if server else None

    def processes(self) -> list[psutil.Process]:
        """The pane's program and all that it started, the eldest first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._session:
                program = psutil.Process(self._session)
                return [program, *program.children(recursive=True)]
        return []

    @property
    def alive(self) -> bool:
        """The pane is there and a program runs in it.

        While tmux does not answer, the program counts as alive as long as the pane's server is there.
        """
        if self._pane is None:
            return False
        try:
            look = self._pane.look()
        except AgentUnavailable as error:
            log.warning("%s: %s", self._kind.agent_id, error)
            return self._pane.server.listener() is not None
        return look is not None and not look.dead and self._kind.is_running(look)

    def adopt(self, pane_id: str, session: int | None, folder: Path) -> bool:
        """Take over the pane that a former worker left, if its program still runs; else end what is left of it."""
        self._kind.workdir = folder
        self._session = session
        self._pane = AgentPane.adopt(self._folder / TMUX, pane_id, on_notice=lambda _: self._bell.ring())
        if self.alive:
            self.wants_login = self._kind.read(self.pane).state is AgentState.LOGIN
            return True
        self.end()
        return False

    def start(self, info: AgentInfo, folder: Path) -> tuple[str, int | None]:
        """Start the program in a new pane, ready for work or for a login; returns the pane's id and its session."""
        self.end()
        self._kind.workdir = folder
        self.wants_login, self._login_asked_at = False, None
        self._pane = AgentPane.start(
            self._folder / TMUX,
            info.agent_id,
            self._kind.launch(),
            workdir=folder,
            environment=self._environment(info),
            on_notice=lambda _: self._bell.ring(),
            on_death=f"printf x 1<>{shlex.quote(str(self._bell.path))}",
            scope=self._settings.pane_scope,
            limits=self.limits,
            cgroup=self._settings.cgroup,
        )
        look = self._pane.look()
        self._session = look.pid if look else None
        try:
            self._pane.transcribe(self._folder / "transcript")
        except AgentUnavailable:  # a program that has ended at once is reported below
            if self.alive:
                raise
        limit = self._settings.agent_start_seconds
        if not self.wait_for(self.settle, limit):
            why = self._why_not_ready(self._pane, limit)
            self.end()
            raise AgentUnavailable(f"agent {info.agent_id} {why}")
        return self._pane.pane_id, self._session

    def _why_not_ready(self, pane: AgentPane, limit: float) -> str:
        if self.alive:
            read = "".join(f"\n{source}: {said}" for source, said in self._kind.explain(pane))
            waited = f"was not ready within {limit:g} s (TORCH_AGENT_START_SECONDS)"
            return f"{waited}; its pane showed:\n{pane.screen()}\nwhich was read as{read}"
        shown = ""
        with contextlib.suppress(AgentUnavailable):  # the pane may be gone with the program
            shown = pane.screen().strip()
        return f"cannot start: its program ended before it was ready; its pane showed:\n{shown or '(nothing)'}"

    def settle(self) -> bool:
        """Go on with the program's start; true when it takes tasks or waits for a person to log in."""
        if self._kind.get_ready(self.pane):
            self.wants_login = False
        elif self._kind.read(self.pane).state is not AgentState.LOGIN:
            self._login_asked_at = None
            return self.wants_login
        elif not self.wants_login:
            self._login_asked_at = self._login_asked_at or time.monotonic()
            if time.monotonic() - self._login_asked_at < _LOGIN_SECONDS:
                return False
            self.wants_login = True
            log.warning("%s", login_hint(self._kind.agent_id))
        return True

    def rotate_transcript(self) -> None:
        """Put a transcript that has become long aside and begin a new one."""
        path = self._folder / "transcript"
        if path.exists() and path.stat().st_size > self._settings.transcript_limit_bytes:
            path.replace(path.with_suffix(".1"))
            self.pane.transcribe(path)

    def interrupt(self, let_go: Callable[[], bool]) -> None:
        """Have the program let go of its task: asked, then forced, then ended."""
        for force in (False, True):
            if not self.alive:
                return
            with contextlib.suppress(AgentUnavailable):  # it died at this very moment: it lets go, too
                self._kind.interrupt(self.pane, force=force)
            if self.wait_for(let_go, self._settings.interrupt_seconds):
                return
        log.warning("%s: does not let go, its pane is ended", self._kind.agent_id)
        self.end()

    def halt(self) -> None:
        """Have a program that works on something else than a task stop that, too."""
        if self._kind.read(self.pane).state is AgentState.WORKING:
            self.interrupt(lambda: self._kind.read(self.pane).state is not AgentState.WORKING)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so; false when the time is over or the program has ended."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not self.alive:
                return condition()
            self._bell.wait(min(left, 0.5))
        return True

    def end(self) -> None:
        """End the agent's tmux server with all that runs in it."""
        pane = self._pane or AgentPane(AgentServer(self._folder / TMUX), "%0")
        pane.end()
        self._pane = None
        if self._session:
            end_session(self._session, self._kind.agent_id)
            self._session = None
        remove_group(self._kind.agent_id, self._settings.cgroup)

    def detach(self) -> None:
        """Let go of the pane, which goes on without us."""
        if self._pane:
            self._pane.close()

    def _environment(self, info: AgentInfo) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
        own = {
            # Last, so that it hides nothing of the user's: the folder of the command by which the agent reports.
            "PATH": os.pathsep.join([kept.get("PATH", os.defpath), str(Path(sys.executable).parent)]),
            "TORCH_AGENT_ID": info.agent_id,
            "TORCH_INCARNATION": str(info.incarnation),
            "TORCH_STATE_DIR": str(self._settings.state_dir),
        }
        return {**kept, **self._kind.environment(), **own}


class Bell:
    """How what runs in an agent's pane wakes the agent worker.

    What happened is always in a file first; the bell, a FIFO, only says "look". A ring that no worker hears costs
    nothing: the next worker looks at the files.
    """

    def __init__(self, path: Path, on_ring: Callable[[], None]) -> None:
        if not path.is_fifo():
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        self.path = path
        self._on_ring = on_ring
        self._rung = threading.Event()
        self._closed = False
        # Opened for both, so that there is always a reader and a writer: neither side ever blocks or sees an end.
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._listen, name=f"bell {path}", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Wake the thread that waits, unless the bell is closed. Safe to call from a signal handler."""
        if not self._closed:
            os.write(self._fd, b".")

    def wait(self, timeout: float) -> None:
        """Return when the bell was rung since the last wait, or after ``timeout`` seconds."""
        self._rung.wait(timeout)
        self._rung.clear()

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        os.write(self._fd, b".")
        self._thread.join()
        os.close(self._fd)

    def _listen(self) -> None:
        while os.read(self._fd, 4096):
            if self._closed:
                return
            self._rung.set()
            self._on_ring()


class ScreenPublisher:
    """One agent's screen. However many watch, it is looked at by one thread, at most twice a second."""

    def __init__(self, agent_id: str, terminal: Terminal, fleet: Fleet) -> None:
        self._key = keys.screen(agent_id)
        self._terminal = terminal
        self._fleet = fleet
        self._until = 0.0
        self._anew = threading.Event()
        self._shown: str | None = None
        self._starting = threading.Lock()
        self._loop: Loop | None = None

    def publish_for_a_while(self) -> None:
        """Publish the whole screen now, and each change for a while."""
        with self._starting:
            self._until = time.monotonic() + WATCHED_SECONDS
            self._anew.set()
            if self._loop is None:
                self._loop = Loop(
                    "screen",
                    self._show,
                    pause=LOOK_SECONDS,
                    until=self._is_unwatched,
                    longest_retry_seconds=LOOK_SECONDS,
                )
                self._loop.start()
            self._loop.wake()

    def _show(self) -> None:
        if self._anew.is_set():
            self._anew.clear()
            self._shown = None
        screen = self._look()
        if screen != self._shown:
            self._fleet.client.publish(self._key, screen)
            self._shown = screen

    def _is_unwatched(self) -> bool:
        with self._starting:
            if time.monotonic() < self._until:
                return False
            self._loop = None
            return True

    def _look(self) -> str:
        screen = self._terminal.pane.screen() if self._terminal.alive else "(the program has ended)"
        return screen.encode()[-PIECE_BYTES:].decode(errors="ignore")


def end_session(leader: int, agent_id: str) -> None:
    """Kill what is left of the session that this process led: programs that ignore the end of their terminal."""
    left = list(_members(leader, agent_id))
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_GONE_SECONDS)


def _members(leader: int, agent_id: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            # The number may lead another session by now; processes of the agent know which agent they belong to.
            if os.getsid(process.pid) == leader and process.environ().get("TORCH_AGENT_ID") == agent_id:
                yield process
