"""The desk of one agent: a socket in its folder through which what runs in its pane reaches the fleet.

The socket is the identity: whatever comes through it is the agent, no matter what the environment of its client or the
request says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch_tasks.caller import Caller, acting_as
from torch_tasks.errors import DeskBusy, FrameRefused, InternalFault, NotAllowed, TorchError, Unreadable
from torch_tasks.link.frames import HEAD, REPLY_BYTES, REQUEST_BYTES, frame, size_of
from torch_tasks.model import metrics
from torch_tasks.model.fields import Model
from torch_tasks.model.reader import as_model, read_object
from torch_tasks.operations.operation import Access, Operation, all_operations, operation_named, request_of
from torch_tasks.operations.performing import perform_here
from torch_tasks.state_folder import DESK, require_short
from torch_tasks.system.files import make_folder, usable
from torch_tasks.system.loops import Loop, in_background
from torch_tasks.system.tally import tally

log = logging.getLogger(__name__)

CONNECTIONS = 64
"""So many clients are connected at a time; others hear that the desk is busy."""
REQUESTS = 32
"""So many requests are carried out at a time."""
READS = 24
"""So many of these may be reading ones: these wait for long, and what writes must not wait for them."""
FRAME_SECONDS = 10.0
"""How long a client may take to send its request, or to take the answer."""
HELD_BYTES = 64 << 20
"""How much the requests that are being read may have together."""
_CLOSING_SECONDS = 2.0
"""How long the desk waits for what writes when it closes."""
_PEER = struct.Struct("3i")


#: Counted for a client that does not take its answer.
_NEVER_READ = "AnswerNotTaken"


class DeskRequest(Model):
    """One request as it travels."""

    operation: str
    fields: Mapping[str, Any] = {}
    key: str | None = None


class Desk:
    """Serves the socket in a thread of its own, and each request in another one."""

    def __init__(self, folder: Path, caller_of: Callable[[int], Caller]) -> None:
        """``caller_of`` makes the agent, as a caller, of the number of a process in its pane."""
        self.path = require_short(folder / DESK)
        self._caller_of = caller_of
        self.served = 0
        self.refused: Counter[str] = Counter()
        """How many requests and clients were refused, by the name of the error."""
        self.connected = 0
        """How many clients are connected."""
        self._held = 0
        self._running: Counter[Access] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Loop("desk", self._serve)

    def open(self) -> None:
        """Serve from now on."""
        self._listener = self._listen()
        self._thread.start()

    def close(self) -> None:
        """Stop serving: the clients wait for the next worker."""
        self._thread.stop()
        if self._loop:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(2 * _CLOSING_SECONDS)
        self._listener.close()  # also if the thread had not come to serve it

    def _listen(self) -> socket.socket:
        """The socket, which only its owner can ever connect to, in place of a former worker's."""
        new = self.path.with_name(f".{self.path.name}")
        new.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        make_folder(self.path.parent)
        with usable(self.path):
            listener.bind(str(new))
            new.chmod(0o600)
            listener.listen(2 * CONNECTIONS)
            new.replace(self.path)
        return listener

    # ── the desk's own thread ────────────────────────────────────────────────────────────────────────────────────

    def _serve(self) -> None:
        for _ in all_operations():  # loaded here, so that the first request does not wait for it
            pass
        asyncio.run(self._attend())

    async def _attend(self) -> None:
        self._closing = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._thread.is_stopping:
            return
        if self._listener.fileno() < 0:  # an error ended the round before
            self._listener = self._listen()
        async with await asyncio.start_unix_server(self._meet, sock=self._listener) as server:
            await self._closing.wait()
            server.close()
            deadline = self._loop.time() + _CLOSING_SECONDS
            while self._running[Access.WRITE] and self._loop.time() < deadline:
                await asyncio.sleep(0.01)

    async def _meet(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one client, which has one request."""
        self.connected += 1
        try:
            answer = await self._answer(reader, writer)
            writer.transport.set_write_buffer_limits(high=0)  # drained is what has left this process
            async with asyncio.timeout(FRAME_SECONDS):
                writer.write(answer)
                await writer.drain()
        except (TimeoutError, ConnectionError):
            self._note_refused(_NEVER_READ)
        finally:
            self.connected -= 1
            writer.transport.abort()

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> bytes:
        try:
            pid = self._require_own_user(writer.get_extra_info("socket"))
            if self.connected > CONNECTIONS:
                raise DeskBusy(f"{CONNECTIONS} clients are connected to the desk {self.path} already; ask again later")
            call = await self._read(reader)
            declared = operation_named(call.operation)
            with self._place(declared):
                return await self._carry_out(declared, call, pid)
        except TorchError as error:
            return self._refusal(error)

    def _require_own_user(self, client: Any) -> int:
        """The process that asks, which must be of this process's own user."""
        pid, uid, _ = _PEER.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != os.getuid():
            raise NotAllowed(f"the desk {self.path} serves user {os.getuid()} alone, and user {uid} asks")
        return int(pid)

    async def _read(self, reader: StreamReader) -> DeskRequest:
        try:
            async with asyncio.timeout(FRAME_SECONDS):
                size = size_of(await reader.readexactly(HEAD.size), REQUEST_BYTES)
                with self._holding(size):
                    text = await reader.readexactly(size)
            return as_model(DeskRequest, read_object(text.decode(), limit=REQUEST_BYTES), "request")
        except TimeoutError:
            raise FrameRefused(f"no whole request came within {FRAME_SECONDS:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise FrameRefused("the client hung up before it had sent a whole request") from None
        except (Unreadable, UnicodeDecodeError) as error:
            raise FrameRefused(f"this is no request: {error}") from None

    @contextmanager
    def _holding(self, size: int) -> Iterator[None]:
        """Keep room for so many bytes, or raise :class:`DeskBusy`."""
        if self._held + size > HELD_BYTES:
            raise DeskBusy(f"the desk {self.path} reads too many long requests already; ask again later")
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    @contextmanager
    def _place(self, declared: Operation[Any, Any]) -> Iterator[None]:
        """Keep a place for this operation, or raise :class:`DeskBusy`."""
        access = declared.access
        if self._running.total() >= REQUESTS or (access is Access.READ and self._running[access] >= READS):
            raise DeskBusy(
                f"the desk {self.path} carries out {self._running.total()} requests already; ask again later"
            )
        self._running[access] += 1
        try:
            yield
        finally:
            self._running[access] -= 1

    async def _carry_out(self, declared: Operation[Any, Any], call: DeskRequest, pid: int) -> bytes:
        """Perform it in a thread of its own, however long that takes."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[bytes | TorchError] = loop.create_future()

        def note(outcome: bytes | TorchError) -> None:
            if not ended.done():
                ended.set_result(outcome)

        def act() -> None:
            outcome = self._perform(declared, call, pid)
            with contextlib.suppress(RuntimeError):  # the desk is closed: the client asks the next worker
                loop.call_soon_threadsafe(note, outcome)

        in_background(f"desk {declared.name}", act)
        outcome = await ended
        if isinstance(outcome, TorchError):
            raise outcome
        self.served += 1
        tally().count(metrics.DESK_REQUESTS, outcome="served")
        return outcome

    def _refusal(self, error: TorchError) -> bytes:
        name = type(error).__name__
        self._note_refused(name)
        return frame({"error": {"name": name, "text": str(error)}})

    def _note_refused(self, name: str) -> None:
        self.refused[name] += 1
        tally().count(metrics.DESK_REQUESTS, outcome=name)

    # ── a thread of each request ─────────────────────────────────────────────────────────────────────────────────

    def _perform(self, declared: Operation[Any, Any], call: DeskRequest, pid: int) -> bytes | TorchError:
        """The frame of the reply, or why there is none."""
        try:
            with acting_as(self._caller_of(pid)):
                reply = perform_here(declared, request_of(declared, call.fields), call.key)
            answer = frame({"reply": declared.reply.dump_python(reply, mode="json")})
        except TorchError as error:
            return error
        except Exception as error:
            log.exception("%s failed", declared.name)
            return InternalFault(f"{declared.name} failed in the agent's worker, whose log says why: {error}")
        if len(answer) > REPLY_BYTES:
            return FrameRefused(f"the reply has {len(answer):,} bytes, more than {REPLY_BYTES:,}; ask for less")
        return answer
