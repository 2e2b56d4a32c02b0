"""All that one machine runs: the broker, the node worker with its agent workers, beat, Flower and the server.

The state folder names every running process, so that any later command finds and ends it, even after kill -9. Who ends
it all needs no broker's client and no Celery: only who starts and keeps it loads them.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psutil

from torch_tasks.errors import (
    InvalidSettings,
    NotEnded,
    ProcessNotStarted,
    RefusedInPane,
    StateFolderUnusable,
    TorchError,
)
from torch_tasks.machine import broker, commands
from torch_tasks.machine.agent_folder import agent_around, agent_worker_name
from torch_tasks.machine.own_server import server_of
from torch_tasks.machine.warm import warm_parent
from torch_tasks.model.agent import AgentSpec
from torch_tasks.redaction import protect, protect_files
from torch_tasks.settings import Settings
from torch_tasks.state_folder import TMUX, require_short
from torch_tasks.system.files import exclusive, make_folder, write_private
from torch_tasks.system.log_files_aside import end_of_log
from torch_tasks.system.loops import backoff
from torch_tasks.system.processes import Processes, Running, await_ready, end_all, processes_of, programs_in
from torch_tasks.system.warm_start import NAME as WARM

log = logging.getLogger(__name__)

#: How long a process may take to end in order, in which an agent worker puts its task back.
GRACE = 15.0
#: How long all but the broker and an agent's program may take to start.
STACK_SECONDS = 30.0
FLOWER_USER = "torch"
#: What the paths of `up`'s Flower begin with, so that the server can pass them on.
FLOWER_PATH = "/flower"
END_THEM = "end them\n"
"""What the process that ends the panes is told when the workers are gone."""
_TAIL_BYTES, _WORDS = 4096, 250
#: The fact in a supervisor's record that names the process that has started it.
_STARTER = "started by"


class Stack:
    """This machine's processes, by name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.processes = Processes(settings.state.run)
        self._warm = warm_parent(settings)

    def refuse_if_up(self) -> None:
        """Refuse a second stack in the same state folder, and any in the pane of one of its agents."""
        self._refuse_in_pane("up")
        recorded = self.processes.find("up")
        pids = [recorded.pid] if recorded else [process.pid for name, process in self._unrecorded() if name == "up"]
        if pids:
            raise ProcessNotStarted(
                f"this machine's stack is up already (process {pids[0]}, state folder {self.settings.state_dir}); "
                "'torch-tasks spawn' starts further agents, 'torch-tasks down' ends it all"
            )

    def check(self, agents: Sequence[AgentSpec]) -> dict[str, str]:
        """Why agents cannot be started here, by their ids, before anything is started; refuse a broken configuration.

        If no agent at all can be started, that is refused, too.
        """
        self.settings.state.require_whole()
        wanted = agents or self.settings.agents
        for agent in wanted:
            require_short(self.settings.state.agent(agent.id) / TMUX)
        done = self._run((*commands.CHECK_AGENTS, *(agent.short() for agent in agents)))
        if done.returncode:
            raise InvalidSettings(done.stderr.strip().removeprefix("Error: "))
        unstartable: dict[str, str] = json.loads(done.stdout)
        if wanted and len(unstartable) == len(wanted):
            raise ProcessNotStarted("\n".join(unstartable.values()))
        return unstartable

    def up(self, agents: Sequence[AgentSpec], *, beat: bool, flower: bool) -> Running:
        """Start the supervisor, and return when what it starts is ready; the agents may still be starting."""
        words = [word for agent in agents for word in ("--agent", agent.short())]
        words += [] if beat else ["--no-beat"]
        words += [] if flower else ["--no-flower"]
        with exclusive(self.settings.state.stack_lock):
            self.refuse_if_up()
            self.ready_file.unlink(missing_ok=True)
            supervisor = self.start("up", (*commands.SUPERVISE, *words), facts={_STARTER: str(os.getpid())})
        await_ready(supervisor, self.ready_file.exists, broker.START_SECONDS + STACK_SECONDS)
        return supervisor

    @property
    def ready_file(self) -> Path:
        """Written by the supervisor once everything it starts answers."""
        return self.settings.state.run / "up.ready"

    def last_words(self, agent_id: str) -> str:
        """The end of the log of the agent's worker, from its last error on."""
        log = self.settings.state.logs / f"{agent_worker_name(agent_id)}.log"
        if not log.exists():
            return "its worker has not started yet"
        last_error = end_of_log(log, _TAIL_BYTES).decode(errors="replace").rpartition("Error: ")[2]
        words = " ".join(last_error.split())
        return words if len(words) <= 2 * _WORDS else f"{words[:_WORDS]} … {words[-_WORDS:]}"

    def start_flower(self) -> Running:
        """Start Flower on loopback, behind its password."""
        port = _port(self.settings.flower_port)
        auth = {"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{self.flower_password()[0]}"}
        facts = {"url": f"http://127.0.0.1:{port}{FLOWER_PATH}"}
        command = (*commands.flower("127.0.0.1", port), f"--url_prefix={FLOWER_PATH.strip('/')}")
        return self.start("flower", command, extra=auth, facts=facts)

    def start_server(self) -> Running:
        """Start the server at the address of the settings, on a free port if theirs is in use."""
        return self.start("server", commands.server(_port(self.settings.server_port)))

    def server_answers(self) -> bool:
        """Whether the server of this stack listens; whether it can serve, it says itself."""
        own, running = server_of(self.settings.state), self.processes.find("server")
        return own is not None and running is not None and own.pid == running.pid

    def flower_password(self) -> tuple[str, bool]:
        """Flower's password, and whether this call has made it."""
        file = self.settings.state.flower_password
        make_folder(file.parent)
        with suppress(FileNotFoundError):
            protect_files(file)
            return file.read_text().strip(), False
        password = secrets.token_urlsafe(18)
        protect(password)
        write_private(file, password + "\n")
        return password, True

    def flower_answers(self) -> bool:
        """Whether Flower serves its pages to a user with the password."""
        return self._ask_flower("/workers")

    def refresh_flower(self) -> bool:
        """Make Flower read the workers and their queues again, which by itself it does only when it starts."""
        from torch_tasks.app import app

        app.control.heartbeat()
        return self._ask_flower("/api/workers?refresh=1")

    def _ask_flower(self, page: str) -> bool:
        running = self.processes.find("flower")
        if running is None:
            return False
        token = base64.b64encode(f"{FLOWER_USER}:{self.flower_password()[0]}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - an address of our own making
            running.facts["url"] + page, headers={"Authorization": f"Basic {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        extra: Mapping[str, str] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> Running:
        """Start one of the stack's processes, with its own log."""
        return self.processes.start(
            name,
            commands.runnable(command),
            log=self.settings.state.logs / f"{name}.log",
            env=self._environment | dict(extra or {}),
            facts=facts,
            forker=self._warm,
        )

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "TORCH_STATE_DIR": str(self.settings.state_dir)}

    def is_ended_by_order(self) -> bool:
        """Whether the supervisor, which runs no more, was ended by who ends the stack; it waits until that is done."""
        with exclusive(self.settings.state.stack_lock):
            return not self.processes.is_recorded("up")

    def down(self, *, keep_agents: bool, only_mine: bool = False) -> list[str]:
        """End everything, the supervisor first and the broker last; returns the names of what was running.

        One thing that cannot be ended keeps nothing else from ending; then :class:`NotEnded` names it. ``only_mine``:
        nothing is ended if another process has started the stack.
        """
        self._refuse_in_pane("down")
        with ExitStack() as alone:
            with suppress(StateFolderUnusable):  # then nothing can be started here either
                alone.enter_context(exclusive(self.settings.state.stack_lock))
            running = self.processes.find("up")
            if only_mine and running and running.facts.get(_STARTER) != str(os.getpid()):
                return []
            return self._end_all(keep_agents=keep_agents)

    def _end_all(self, *, keep_agents: bool) -> list[str]:
        ended: list[str] = []
        troubles: list[str] = []
        pane_ender: subprocess.Popen[str] | None = None
        if not keep_agents:
            with suppress(OSError):  # it is tried again, and named then
                pane_ender = self._pane_ender()
        steps: list[Callable[[], Iterable[str]]] = [
            partial(self._end_recorded, "up"),
            partial(self._end_unrecorded, "up"),  # from here on, nothing is started again
            partial(self._end_recorded, "server", "flower", "beat", "node"),
            self._end_agent_workers,
            partial(self._end_recorded, WARM),
            self._end_unrecorded,
            *(() if keep_agents else (partial(self._end_panes, pane_ender),)),
            lambda: ["broker"] if broker.stop_broker(self.settings, GRACE) else [],
            self._end_unrecorded_brokers,
        ]
        for step in steps:
            try:
                ended.extend(step())
            except (TorchError, OSError) as error:
                troubles.append(str(error))
        with suppress(OSError):
            self.ready_file.unlink(missing_ok=True)
        if troubles:
            raise NotEnded(f"not everything could be ended: {'; '.join(troubles)}. Ended: {', '.join(ended) or 'none'}")
        return ended

    def _end_recorded(self, *names: str) -> Iterator[str]:
        """End these at once, for each may take its whole grace."""
        with ThreadPoolExecutor(max(1, len(names))) as at_once:
            ends = {name: at_once.submit(self.processes.stop, name, GRACE) for name in names}
        troubles: list[str] = []
        for name, end in ends.items():
            try:
                if end.result():
                    yield name
            except (TorchError, OSError) as error:
                troubles.append(str(error))
        if troubles:
            raise NotEnded("; ".join(troubles))

    def _end_agent_workers(self) -> Iterator[str]:
        """End those that the node worker has left."""
        names = [running.name for running in self.processes.all_running() if running.name.startswith("agent-")]
        return self._end_recorded(*names)

    def _end_unrecorded(self, only: str = "") -> list[str]:
        found = [(name, process) for name, process in self._unrecorded() if only in ("", name)]
        end_all([process for _, process in found], GRACE)
        return [f"{name} (process {process.pid}, which had no record)" for name, process in found]

    def _unrecorded(self) -> list[tuple[str, psutil.Process]]:
        """The lasting processes of this state folder that no record names: it was lost, or there is one too many."""
        known = {running.pid for running in self.processes.all_running()}
        found = [(commands.lasting_process(argv), one) for one, argv in processes_of(self.settings.state_dir)]
        return [(name, process) for name, process in found if name and process.pid not in known]

    def _end_unrecorded_brokers(self) -> list[str]:
        """A broker writes its title over its environment: only its folder tells whose it is."""
        left = programs_in(self.settings.state.broker, broker.PROGRAMS)
        end_all(left, GRACE)
        return [f"broker (process {process.pid}, which had no record)" for process in left]

    def _pane_ender(self) -> subprocess.Popen[str]:
        """What ends the panes once it is told to; until then it loads what it needs, beside what else ends."""
        # Whatever is wrong with the settings, the panes are ended: without them.
        env = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_")}
        folders = {
            "TORCH_CONFIG_DIR": str(self.settings.state.run / "no-configuration"),
            "TORCH_STATE_DIR": str(self.settings.state_dir),
        }
        pipe = subprocess.PIPE
        argv = commands.runnable(commands.END_PANES)
        return subprocess.Popen(argv, env={**env, **folders}, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def _end_panes(self, begun: subprocess.Popen[str] | None) -> Iterator[str]:
        ender = begun or self._pane_ender()
        said, wrong = ender.communicate(END_THEM)
        for agent in said.split():
            yield f"pane of {agent}"
        if ender.returncode:
            raise NotEnded(f"the agents' panes could not be ended: {wrong.strip()}")

    def _refuse_in_pane(self, command: str) -> None:
        if agent := agent_around(self.settings.state):
            raise RefusedInPane(
                f"'torch-tasks {command}' would end the pane of {agent}, in which it runs; "
                "run it in a terminal of your own"
            )

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "TORCH_STATE_DIR": str(self.settings.state_dir)}
        return subprocess.run(commands.runnable(command), env=env, capture_output=True, text=True, check=False)


class Supervisor:
    """Keeps the stack's processes alive until ``leaving`` is set. It does not end them: ``down`` does."""

    def __init__(self, stack: Stack, agents: Sequence[AgentSpec], *, beat: bool, flower: bool) -> None:
        self.leaving = threading.Event()
        self._stack = stack
        self._started: dict[str, Running] = {}
        self._crashes: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._starters: dict[str, Callable[[], Running]] = {"node": lambda: stack.start("node", commands.node(agents))}
        if beat:
            self._starters["beat"] = lambda: stack.start("beat", commands.BEAT)
        if flower:
            self._starters["flower"] = stack.start_flower
        if stack.settings.serve:
            self._starters["server"] = stack.start_server

    def run(self, ready: Callable[[], bool], shape: Callable[[], object]) -> None:
        """Restart what has ended, again and again; refresh Flower when the fleet's shape changes."""
        from torch_tasks.broker.connection import connect
        from torch_tasks.broker.memory import MemoryLog, memory_of

        memory = MemoryLog()
        while not self.leaving.is_set() and not (self._start_missing() and ready()):
            self.leaving.wait(0.1)
        self._stack.ready_file.touch()
        seen: object = None
        while not self.leaving.wait(1.0):
            try:
                self._start_missing()
                if self._stack.settings.broker_url is None:
                    broker.put_log_aside_if_full(self._stack.settings)
                    memory.note(memory_of(connect()))
                if seen != (now := shape()) and self._stack.refresh_flower():
                    seen = now
            except TorchError as error:  # after the first start, tried again until `down` is called
                log.error("%s", error)

    def _start_missing(self) -> bool:
        """Start what is not running; true if nothing had to be."""
        if self._stack.settings.broker_url is None:
            broker.start_broker(self._stack.settings)
        missing = [name for name in self._starters if not self._stack.processes.find(name)]
        for name in missing:
            if former := self._started.pop(name, None):
                self._schedule_restart(former)
            if time.monotonic() >= self._not_before.get(name, 0):
                log.info("starting %s", name)
                self._started[name] = self._starters[name]()
        return not missing

    def _schedule_restart(self, former: Running) -> None:
        """Log why a process has ended; it is started again after a pause that grows with each time."""
        crashes = self._crashes[former.name] = self._crashes.get(former.name, 0) + 1
        pause = backoff(crashes, 1.0, self._stack.settings.restart_backoff_limit_seconds)
        self._not_before[former.name] = time.monotonic() + pause
        log.error(
            "%s (process %d) has ended; starting it again in %g s. The end of its log, %s:\n%s",
            former.name,
            former.pid,
            pause,
            former.log,
            former.last_words(),
        )


def _port(wanted: int) -> int:
    """The wanted port if it is free, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # what is left of its former connections is no use
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise TorchError("no free port on 127.0.0.1")
