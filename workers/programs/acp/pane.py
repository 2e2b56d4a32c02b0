"""The program in the pane of an ``acp`` agent: ``python -m torch_tasks.workers.programs.acp.pane FOLDER``.

It starts the agent's program as its child and ends with it. Orders of the agent's worker come through a socket in the
agent's folder, and what happens goes there as events; a person who is attached types prompts and answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

from acp.client import ClientSideConnection
from acp.interfaces import Client
from pydantic import TypeAdapter

from torch_tasks.machine.agent_folder import write_event
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question
from torch_tasks.visible_text import one_line
from torch_tasks.workers.programs.acp.door import EVENT, LINE_BYTES, KeptSession, PaneDoor, PaneStart
from torch_tasks.workers.programs.acp.session import AcpSession, Unusable
from torch_tasks.workers.programs.acp.transport import StdioTransport
from torch_tasks.workers.programs.acp.view import LineEditor, PaneView, keys_one_by_one
from torch_tasks.workers.programs.events import ProgramEvent

_SHOWN_GARBAGE = 200
_LEAVE_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0
"""How long the errors of a program that has ended are waited for: a child of its own may hold them open."""
_UNUSABLE = 3
_EVENT = TypeAdapter(ProgramEvent)


class EventWriter:
    """Writes the events, each as one file; their times grow, so that their order is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = 0

    def __call__(self, event: ProgramEvent) -> None:
        self._last = max(self._last + 1, time.time_ns() // 1_000_000)
        given = _EVENT.dump_python(event, mode="json", exclude={"at"})
        write_event(self._folder, f"{EVENT}{event.kind}", given, at=self._last)


class AcpPane:
    """The program in the pane, from its start to the end of the agent's program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = PaneStart.read(folder)
        self._view = PaneView(sys.stdout, lambda: shutil.get_terminal_size().columns)
        self._session = AcpSession(self._start, str(Path.cwd()), self._view, EventWriter(folder))
        self._session.on_change = self._show_input
        self._editor = LineEditor(self._session.take_line, self._interrupt, self._leave)
        self._ends = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Returns the exit code."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(name, self._ends.set)
        try:
            # In a group of its own, C-c and the end of the terminal reach this program alone.
            agent = await asyncio.create_subprocess_exec(
                *self._start.command, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=LINE_BYTES, process_group=0
            )
        except OSError as error:
            self._view.show(f"cannot start {self._start.command[0]}: {error.strerror}", "✗ ")
            return _UNUSABLE
        try:
            return await self._attend(agent)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(agent.pid, signal.SIGKILL)
            await agent.wait()

    async def _attend(self, agent: Process) -> int:
        assert agent.stdin
        assert agent.stdout
        assert agent.stderr
        loop = asyncio.get_running_loop()
        server = await self._serve()
        loop.add_reader(sys.stdin.fileno(), self._on_keys)
        transport = StdioTransport(agent.stdout, agent.stdin, self._show_garbage)
        connection = ClientSideConnection(cast(Client, self._session), transport)
        errors = asyncio.create_task(self._show_errors(agent.stderr))
        beginning = asyncio.create_task(self._begin(connection))
        ended, leaving = asyncio.create_task(agent.wait()), asyncio.create_task(self._ends.wait())
        self._show_input()
        try:
            await asyncio.wait((ended, leaving, beginning), return_when=asyncio.FIRST_COMPLETED)
            if beginning.done() and not beginning.result():
                return _UNUSABLE
            await asyncio.wait((ended, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                agent.stdin.close()  # an agent's program ends with its input
                await asyncio.wait((ended,), timeout=_LEAVE_SECONDS)
                return 0
            code = ended.result()
            await asyncio.wait((errors,), timeout=_LAST_WORDS_SECONDS)
            self._view.show(f"{self._start.command[0]} ended with exit code {code}", "✗ ")
            return code if code > 0 else 1
        finally:
            loop.remove_reader(sys.stdin.fileno())
            server.close()
            agent.stdin.close()

    async def _begin(self, connection: ClientSideConnection) -> bool:
        """Open the session; false if the program cannot be used."""
        try:
            await self._session.begin(connection)
        except Unusable as why:
            self._view.show(str(why), "✗ ")
            return False
        except OSError:
            return True  # its end is seen by its exit code
        KeptSession(session=self._session.session, is_kept=self._session.is_kept).write(self._folder)
        return True

    async def _show_errors(self, errors: asyncio.StreamReader) -> None:
        """Draw what the program writes to its standard error."""
        while piece := await errors.read(65536):
            self._view.show(piece.decode(errors="replace").rstrip("\n"), "! ", "! ")

    def _show_garbage(self, line: str) -> None:
        self._view.show(f"not of the protocol: {one_line(line, _SHOWN_GARBAGE)}", "! ")

    def _show_input(self) -> None:
        status = self._session.status
        waits = f", no answer to {status.rule} yet" if status.state is AgentState.STARTING else ""
        self._view.show_input(f"{status.state}{waits}", self._editor.draft)

    # ── the person ───────────────────────────────────────────────────────────────────────────────────────────────

    def _on_keys(self) -> None:
        try:
            typed = os.read(sys.stdin.fileno(), 65536)
        except OSError:  # the terminal is gone
            typed = b""
        if not typed:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._leave()
        self._editor.feed(typed)
        self._show_input()

    def _interrupt(self) -> None:
        if self._editor.draft:
            self._editor.draft = ""
        else:
            self._spawn(self._session.cancel())

    def _leave(self) -> None:
        self._ends.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── the worker ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> asyncio.Server:
        path = PaneDoor(self._folder).path
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, path, limit=LINE_BYTES)
        path.chmod(0o600)
        return server

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Obey one order of the worker's."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            order = json.loads(await reader.readline())
            reply = await self._obey(order)
            writer.write(json.dumps({"reply": reply}).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _obey(self, order: dict[str, Any]) -> Any:
        session = self._session
        match order["order"]:
            case "status":
                return session.status.model_dump(mode="json")
            case "prompt":
                return session.give(order["life"], order["number"], order["text"])
            case "permit":
                return session.permit(Question.model_validate(order["question"]), allowed=order["allowed"]).value
            case "choose":
                return session.choose(Question.model_validate(order["question"]), order["number"])
            case "cancel":
                await session.cancel()
                return True
        raise KeyError(order["order"])


def main() -> None:
    """Run in the agent's pane until the agent's program ends."""
    with keys_one_by_one():
        code = asyncio.run(AcpPane(Path(sys.argv[1])).run())
    sys.stdout.write("\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
