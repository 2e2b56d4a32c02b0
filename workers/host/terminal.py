"""The agent's program in its pane: started, adopted, interrupted; and the bell it rings."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from torch_tasks.errors import AgentUnavailable
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.limits import Limits
from torch_tasks.settings import Settings
from torch_tasks.state_folder import JOURNAL, TMUX, UNPACKED
from torch_tasks.system.lineage import Lineage
from torch_tasks.system.loops import Loop
from torch_tasks.visible_text import one_line
from torch_tasks.workers.folders import AgentJournal, AttemptFolder
from torch_tasks.workers.host.pane_environment import pane_environment
from torch_tasks.workers.host.walls import Walls
from torch_tasks.workers.programs.kind import AgentKind, Hindrance
from torch_tasks.workers.sandbox.box import Use
from torch_tasks.workers.sandbox.decision import Boxing
from torch_tasks.workers.tmux.cgroup import group_of, joining_words, remove_group
from torch_tasks.workers.tmux.keyboard import Keyboard
from torch_tasks.workers.tmux.pane import USE_SECONDS, AgentPane, PaneLook
from torch_tasks.workers.tmux.server import AgentServer

log = logging.getLogger(__name__)

#: How long a program must show that it wants something of a person before nothing waits for it any more; a single key
#: of a person's is no such thing.
_HOLD_SECONDS = USE_SECONDS + 1.0
#: What ends a program in one of these states, its limit's end or its own work, is waited for elsewhere.
_PASSES_BY_ITSELF = frozenset({AgentState.LIMITED, AgentState.COMPACTING, AgentState.EXITED})
#: How much of a program's last line is quoted.
_TOLD = 200
#: How long what outlives its terminal may take to end before it is killed.
_GONE_SECONDS = 1.0
_AGAIN_SECONDS = 0.1
"""How long a bell that is closed waits for its thread before it rings again."""


@dataclass(frozen=True)
class ProgramHold:
    """What keeps a program that has no task from taking one, until a person acts."""

    state: AgentState
    asks: str
    """What its screen asks of a person."""


class Terminal:
    """One agent's pane on its own tmux server; the program in it outlives this process."""

    def __init__(self, folder: Path, kind: AgentKind, bell: Bell, settings: Settings) -> None:
        self._folder = folder
        self._kind = kind
        self._bell = bell
        self._settings = settings
        self.walls = Walls(folder, kind, settings)
        self.lineage = terminal_lineage(settings, kind.agent_id)
        """The tmux server, the program, and all that these have started in whichever life."""
        self.keyboard = Keyboard(settings.person_away_seconds)
        """Who types into its pane, and into the one that follows it."""
        self._pane: AgentPane | None = None
        self._session: int | None = None
        self._held_since: float | None = None
        self._is_spared = False
        self.boxing = Boxing(is_boxed=False)
        """Whether the program runs in a box."""
        self.held_up: ProgramHold | None = None
        """The program takes no tasks before a person has acted in its pane."""

    @property
    def pane(self) -> AgentPane:
        """The pane; only after :meth:`adopt` or :meth:`start`."""
        if self._pane is None:
            raise AgentUnavailable(f"agent {self._kind.agent_id} has no pane")
        return self._pane

    @property
    def limits(self) -> Limits:
        """How much its programs may use together."""
        return self._kind.spec.or_else(self._settings.agent_limits)

    @property
    def server_pid(self) -> int | None:
        """The process id of the tmux server, if it runs."""
        server = self._pane.server.listener() if self._pane else None
        return server.pid if server else None

    def environment(self, info: AgentInfo) -> dict[str, str]:
        """What its program finds in its environment, and the checks of its tasks in theirs."""
        return pane_environment(self._kind, info, self._folder, self._settings)

    def why_no_box(self, folder: Path) -> str | None:
        """Why its program, which is boxed, cannot be boxed in this folder; None if it can, or is not boxed."""
        return self.walls.why_not_in(folder) if self.boxing.is_boxed else None

    def may_work_in(self, folder: Path) -> bool:
        """Whether the program in the pane sees this folder and may write it."""
        box = self._kind.box
        wall = box.wall_around(folder) if box else None
        return box is None or (wall is not None and wall.use is Use.WRITE)

    def around_check(self, folder: Path, command: Sequence[str]) -> list[str]:
        """The command that runs the check of a task in this folder, within the box and the limits of the program."""
        boxed = self.walls.around_check(folder, command) if self.boxing.is_boxed else list(command)
        server = self.server_pid
        group = group_of(server, self._kind.agent_id) if server else None
        return [*joining_words(group), *boxed]

    def processes(self) -> list[psutil.Process]:
        """The pane's program and all that it started, the oldest first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._session:
                program = psutil.Process(self._session)
                return [program, *program.children(recursive=True)]
        return []

    @property
    def is_alive(self) -> bool:
        """The pane exists and a program runs in it; while tmux does not answer, a running tmux server is enough."""
        if self._pane is None:
            return False
        try:
            look = self._pane.look()
        except AgentUnavailable as error:
            log.warning("%s: %s", self._kind.agent_id, error)
            return self._pane.server.listener() is not None
        return look is not None and not look.dead and self._kind.is_running(look)

    def adopt(self, pane_id: str, session: int | None, folder: Path, boxing: Boxing) -> bool:
        """Take over the pane that a former worker left, if its program still runs; else end it."""
        self._kind.workdir = folder
        self.boxing = boxing
        self._kind.box = self.walls.build(folder) if boxing.is_boxed else None
        self._session = session
        self._pane = AgentPane.adopt(self._folder / TMUX, pane_id, on_notice=lambda _: self._bell.ring())
        if self._pane:
            self._pane.keyboard = self.keyboard
        if self.is_alive:
            reading = self._kind.read(self.pane)
            self.held_up = ProgramHold(AgentState.LOGIN, "a login") if reading.state is AgentState.LOGIN else None
            return True
        self.end()
        return False

    def start(self, info: AgentInfo, folder: Path, resumes: str | None = None) -> tuple[str, int | None]:
        """Start the program in a new pane; returns the pane's id and its session. :meth:`await_start` follows.

        ``resumes`` is the conversation to go on with.
        """
        self.end()
        self._kind.workdir = folder
        self.held_up, self._held_since = None, None
        (self._folder / UNPACKED).mkdir(exist_ok=True)
        self.boxing = self.walls.decide(folder)
        self._kind.box = self.walls.build(folder) if self.boxing.is_boxed else None
        command = self._kind.launch(resumes)
        self._pane = AgentPane.start(
            self._folder / TMUX,
            info.agent_id,
            self.walls.around(self._kind.box, command) if self._kind.box else command,
            workdir=folder,
            environment={**self.environment(info), **self.lineage.environment},
            on_notice=lambda _: self._bell.ring(),
            on_death=f"printf x 1<>{shlex.quote(str(self._bell.path))}",
            scope=self._settings.pane_scope,
            limits=self.limits,
            before=self.lineage.words,
            cgroup=self._settings.cgroup,
        )
        self._pane.keyboard = self.keyboard
        look = self._pane.look()
        self._session = look.pid if look else None
        try:
            self._pane.transcribe(self._folder / "transcript")
        except AgentUnavailable:  # a program that has ended at once is reported below
            if self.is_alive:
                raise
        return self._pane.pane_id, self._session

    def await_start(self, *, is_leaving: Callable[[], bool] = lambda: False) -> None:
        """Wait until the program is ready, or is held up by something that a person has to see to.

        What stands on the screen may be a person's: when the time is over, only a program that shows nothing is ended.
        """
        if self.wait_for(lambda: is_leaving() or self.settle(), self._settings.agent_start_seconds):
            return
        pane, agent_id = self.pane, self._kind.agent_id
        look = pane.look() if self.is_alive else None
        shown = pane.screen().split() if look else []
        if look is None or not (shown or look.attached):
            why = self._why_not_ready(pane)
            self.end()
            raise AgentUnavailable(f"agent {agent_id} {why}")
        log.warning("agent %s %s", agent_id, self._why_not_ready(pane))
        self.held_up = self._hold(is_overdue=True)

    def _why_not_ready(self, pane: AgentPane) -> str:
        if self.is_alive:
            read = "".join(f"\n{source}: {evidence}" for source, evidence in self._kind.explain(pane))
            limit = f"{describe_duration(self._settings.agent_start_seconds)} (TORCH_AGENT_START_SECONDS)"
            waited = f"was not ready within {limit}"
            return f"{waited}; its pane showed:\n{pane.screen() or '(nothing)'}\nwhich was read as{read}"
        shown, code = "", ""
        with contextlib.suppress(AgentUnavailable):  # the pane may be gone with the program
            shown, code = pane.screen().strip(), _exit_code(pane.look())
        return f"cannot start: its program ended{code} before it was ready; its pane showed:\n{shown or '(nothing)'}"

    def how_it_ended(self) -> str:
        """What is known of the end of the program: its exit code, and its last line."""
        with contextlib.suppress(AgentUnavailable):
            look = self.pane.look()
            said = [line.strip() for line in self.pane.screen().split("\n") if line.strip()] if look else []
            if look and (look.dead or said):
                last = f"; its last line: {one_line(said[-1], _TOLD)}" if said else ""
                return f"its program ended{_exit_code(look)}{last}"
        return "its pane died"

    def settle(self) -> bool:
        """Take the program's start one step further; true when it takes tasks or is held up until a person acts."""
        is_ready = self._kind.is_free(self.pane) if self._kind.has_started else self._kind.get_ready(self.pane)
        if is_ready:
            self._note_hold(None)
            return True
        self._note_hold(self._hold(is_overdue=self._kind.has_started) or self.held_up)
        return self.held_up is not None

    def is_free(self) -> bool:
        """Whether the program takes a task now; whatever kept it from one is over then."""
        if self.held_up:  # perhaps a new program for this task
            self.settle()
        is_free = self.held_up is None and self._kind.is_free(self.pane)
        if is_free:
            self._note_hold(None)
        return is_free

    def look_at_rest(self, *, has_messages: bool = False) -> bool:
        """Note what keeps the program from its next task, once it has for some seconds; true if there is something.

        A known dialog is answered. While the program works on a message, or has one in its input line, that is known.
        """
        if self._kind.is_free(self.pane):
            self._is_spared = False
            self._note_hold(None)
            return False
        if self.keyboard.person:  # who has taken it over knows what it waits for
            return False
        is_working = self._kind.read(self.pane).state is AgentState.WORKING
        self._interrupt_spared(is_working=is_working)
        if not has_messages:
            self._kind.clear_input(self.pane)
        hold = None if has_messages and is_working else self._hold(is_overdue=True)
        self._note_hold(hold)
        return hold is not None

    def _interrupt_spared(self, *, is_working: bool) -> None:
        """Interrupt what the program was left to go on with for the sake of a draft, once that is gone."""
        if self._is_spared and not (is_working and self._kind.has_draft(self.pane)):
            self._is_spared = False
            if is_working:
                self._kind.interrupt(self.pane, force=False)

    def _note_hold(self, hold: ProgramHold | None) -> None:
        """The program shows this; what lasts for some seconds holds it up."""
        self._held_since = (self._held_since or time.monotonic()) if hold else None
        has_lasted = self._held_since is not None and time.monotonic() - self._held_since >= _HOLD_SECONDS
        self.held_up = hold if self.held_up or has_lasted else None

    def _hold(self, *, is_overdue: bool) -> ProgramHold | None:
        """What the program wants of a person; None while it may get on by itself, which is not waited for for ever."""
        reading = self._kind.read(self.pane)
        if reading.state is AgentState.LOGIN:
            return ProgramHold(AgentState.LOGIN, reading.question.text if reading.question else "a login")
        if question := reading.question or reading.offers:
            return ProgramHold(AgentState.WAITING, question.in_words)
        hindrance = self._kind.hindrance(self.pane)
        if hindrance in (Hindrance.PERSON, Hindrance.DIALOG):
            return ProgramHold(AgentState.WAITING, str(hindrance))
        if not is_overdue or reading.state in _PASSES_BY_ITSELF:
            return None
        obstacle = replace(reading, hindrance=hindrance).obstacle
        return ProgramHold(AgentState.WAITING, obstacle or f"the agent's program is {reading.state} ({reading.rule})")

    def rotate_transcript(self) -> None:
        """Begin a new transcript if this one is too long; the one before is kept."""
        path = self._folder / "transcript"
        if path.exists() and path.stat().st_size > self._settings.transcript_limit_bytes:
            path.replace(path.with_suffix(".1"))
            self.pane.transcribe(path)

    def interrupt(self, has_stopped: Callable[[], bool], *, spares_draft: bool = False) -> None:
        """Have the program stop what it does: ask it, then force it, then end it.

        A program that ``spares_draft`` keeps a person's draft: it is asked again when that is gone.
        """
        for force in (False, True):
            if not self.is_alive:
                return
            if force and spares_draft and self._kind.has_draft(self.pane):
                log.warning("%s: its program does not stop, and goes on: it holds a draft", self._kind.agent_id)
                self._is_spared = True
                return
            with contextlib.suppress(AgentUnavailable):  # it died at this very moment, so it has stopped, too
                self._kind.interrupt(self.pane, force=force)
            if self.wait_for(has_stopped, self._settings.interrupt_seconds):
                return
        log.warning("%s: its program does not stop, so its pane is ended", self._kind.agent_id)
        self.end()

    def interrupt_other_work(self) -> None:
        """Interrupt a program that works on something other than a task."""
        if self._kind.read(self.pane).state is AgentState.WORKING:
            self.interrupt(lambda: self._kind.read(self.pane).state is not AgentState.WORKING)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for the condition; false if the time is over or the program has ended before."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not self.is_alive:
                return condition()
            self._bell.wait(min(left, 0.5))
        return True

    def end(self) -> None:
        """End the agent's tmux server with all that runs in it."""
        pane = self._pane or AgentPane(AgentServer(self._folder / TMUX), "%0")
        pane.end()
        self._pane = None
        self._session = None
        self.lineage.end(_GONE_SECONDS)
        remove_unpacked(self._folder)
        remove_group(self._kind.agent_id, self._settings.cgroup)

    def detach(self) -> None:
        """Close the connection to the pane; its program goes on."""
        if self._pane:
            self._pane.close()


class Bell:
    """How what runs in an agent's pane wakes the agent worker.

    What happened is always in a file first; the bell, a FIFO, only says "look". A ring while no worker runs is not
    needed: the next worker looks at the files.
    """

    def __init__(self, path: Path, on_ring: Callable[[], None]) -> None:
        if not path.is_fifo():
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        self.path = path
        self._on_ring = on_ring
        self._rung = threading.Event()
        self._closed = False
        # Opened for reading and writing, so that neither side ever blocks or sees an end.
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._loop = Loop(f"bell {path}", self._listen, until=lambda: self._closed)
        self._loop.start()

    def ring(self) -> None:
        """Wake the thread that waits, unless the bell is closed. Safe to call from a signal handler."""
        if not self._closed:
            os.write(self._fd, b".")

    def wait(self, timeout: float) -> None:
        """Return when the bell was rung since the last wait, or after ``timeout`` seconds."""
        self._rung.wait(timeout)
        self._rung.clear()

    def close(self) -> None:
        """End the thread that listens. The agent's next worker may listen already, and hear some of the rings."""
        self._closed = True
        self._loop.stop()
        while self._loop.is_alive:
            os.write(self._fd, b".")
            self._loop.join(_AGAIN_SECONDS)
        os.close(self._fd)

    def _listen(self) -> None:
        """Wait for a ring and pass it on."""
        os.read(self._fd, 4096)
        if not self._closed:
            self._rung.set()
            self._on_ring()


def terminal_lineage(settings: Settings, agent_id: str) -> Lineage:
    """All that was ever started in the agent's terminal."""
    return Lineage(settings.state_dir, f"terminal of {agent_id}")


def check_lineage(settings: Settings, agent_id: str) -> Lineage:
    """All that the agent's workers ever started as checks of its tasks."""
    return Lineage(settings.state_dir, f"checks of {agent_id}")


def end_terminal(agent_id: str, settings: Settings, why: str = "") -> bool:
    """End the terminal of an agent whose worker is gone, and all that was started in it; false if it had none.

    With ``why``, its unfinished task is given back for this reason by the next worker, else it counts as crashed.
    """
    folder = settings.state.agent(agent_id)
    server = AgentServer(folder / TMUX)
    has_terminal = server.listener() is not None
    try:
        journal = AgentJournal.read(folder / JOURNAL)
        if journal and journal.current and why and has_terminal:
            AttemptFolder(folder / "runs", journal.current.task_id, journal.current.attempt).interrupt(why)
    finally:
        AgentPane(server, "%0").end()
        end_strays(agent_id, settings)
    return has_terminal


def _exit_code(look: PaneLook | None) -> str:
    return "" if look is None or look.dead_status is None else f" with exit code {look.dead_status}"


def end_strays(agent_id: str, settings: Settings) -> list[int]:
    """End what is left of an agent that has neither a terminal nor a worker; returns the processes' numbers."""
    lineages = (terminal_lineage(settings, agent_id), check_lineage(settings, agent_id))
    ended = [pid for lineage in lineages for pid in lineage.end(_GONE_SECONDS)]
    remove_unpacked(settings.state.agent(agent_id))
    return ended


def remove_unpacked(folder: Path) -> None:
    """Remove what the programs of this agent have unpacked of themselves; none of them runs any more."""
    shutil.rmtree(folder / UNPACKED, ignore_errors=True)
