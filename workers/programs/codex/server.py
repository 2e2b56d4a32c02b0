"""The app server of one Codex: JSON-RPC in the text frames of a WebSocket on a Unix socket in the agent's folder.

Torch uses nothing of it that it does not know: then the door is shut, and prompts go through the pane.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from packaging.version import Version

from torch_tasks.model.agent import AgentState

log = logging.getLogger(__name__)

WITH_SERVER = Path(__file__).parents[1] / "scripts" / "with_server"
"""The program that runs a server beside the program in the pane: ``with_server FOLDER``."""
OLDEST = Version("0.169.0")
"""Earlier releases were never tried."""
_OPEN_SECONDS, _CALL_SECONDS = 2.0, 5.0
_AWAY_SECONDS = 5.0
"""For so long nothing is asked of a server that did not answer."""
_RELEASE = re.compile(r"/(\d+(?:\.\d+)+)")
_NEWS = frozenset({"turn/started", "turn/completed", "thread/status/changed", "serverRequest/resolved"})
#: What would be sent for every word of an answer.
_UNWANTED = ("item/agentMessage/delta", "item/reasoning/textDelta", "item/commandExecution/outputDelta")
_PAGE = 4

Message = Mapping[str, Any]
ServerTurn = Mapping[str, Any]
"""A turn as the server lists it: ``id``, ``status``, ``items``, ``error``, its times."""


class DoorShut(Exception):
    """The server does not answer, or says what Torch does not know."""


class RequestRefused(DoorShut):
    """The server has not done what it was asked to, and says why."""


class _Connection(threading.Thread):
    """One connection to the server; this thread takes what comes over it."""

    def __init__(self, socket: Path, on_news: Callable[[], None]) -> None:
        from websockets.exceptions import WebSocketException  # slow to import, and only Codex needs it
        from websockets.sync.client import unix_connect

        super().__init__(name=f"news of {socket}", daemon=True)
        self._on_news = on_news
        self._hang_ups = (WebSocketException, OSError)
        self._numbers = count(1)
        self._opened = ExitStack()
        self._asked: dict[int, Future[Message]] = {}
        self.requests: dict[Any, Message] = {}
        """What the server asks, by its ids, until somebody has answered it."""
        self.subscribed: set[str] = set()
        """The conversations whose requests come over this connection."""
        try:
            # By the way through its opened folder: the path may be longer than a socket's may be, where the program's
            # temporary files lie in a box.
            around = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._opened.callback(os.close, around)
            way = f"/proc/self/fd/{around}/{socket.name}"
            opening = unix_connect(way, "ws://localhost/", open_timeout=_OPEN_SECONDS, max_size=None)
            self._socket = self._opened.enter_context(opening)
        except self._hang_ups as error:
            raise DoorShut(f"nothing answers at {socket}: {error}") from error
        self.start()

    def call(self, method: str, params: Message) -> Message:
        """Ask the server, and return what it answers."""
        number, answer = next(self._numbers), Future[Message]()
        self._asked[number] = answer
        try:
            self.tell(method, params, id=number)
            if not wait([answer], _CALL_SECONDS).done:
                raise DoorShut(f"it has not answered {method} within {_CALL_SECONDS:g} s")
        finally:
            self._asked.pop(number, None)
        reply = answer.result()
        if error := reply.get("error"):
            raise RequestRefused(f"it refuses {method}: {error.get('message')}")
        result: Message = reply["result"]
        return result

    def tell(self, method: str, params: Message, **fields: object) -> None:
        self._send({"method": method, "params": params, **fields})

    def answer(self, request: object, result: Message) -> None:
        self._send({"id": request, "result": result})

    def close(self) -> None:
        self._opened.close()

    def _send(self, message: Message) -> None:
        try:
            self._socket.send(json.dumps(message))
        except self._hang_ups as error:
            raise DoorShut(f"it has hung up: {error}") from error

    def run(self) -> None:
        try:
            for text in self._socket:
                self._take(json.loads(text))
        except (*self._hang_ups, ValueError, LookupError, TypeError) as error:
            log.debug("%s: %r", self.name, error)
        finally:
            self.close()
            for answer in list(self._asked.values()):
                if not answer.done():
                    answer.set_exception(DoorShut("it has hung up"))
            self._on_news()

    def _take(self, message: Message) -> None:
        if "method" not in message:
            if asked := self._asked.get(message["id"]):
                asked.set_result(message)
            return
        if "id" in message:
            self.requests[message["id"]] = message
        elif message["method"] == "serverRequest/resolved":
            self.requests.pop(message["params"]["requestId"], None)
        if "id" in message or message["method"] in _NEWS:
            self._on_news()


class CodexServer:
    """What Torch asks of the server; any :class:`DoorShut` means that the pane is the way."""

    def __init__(self, folder: Path, on_news: Callable[[], None], outside: Callable[[Path], Path]) -> None:
        """``outside`` says where a path of the server's lies for this process."""
        self._door = folder / "door"
        self._outside = outside
        self._pid_file = folder / "server.pid"
        self._on_news = on_news
        self._open: _Connection | None = None
        self._away_until = 0.0
        self._why = ""
        self._conversations: dict[str, bool] = {}

    @property
    def socket(self) -> Path:
        """Where it listens; Codex keeps the socket itself among its own files, and leaves a link here."""
        return self._outside(self._door.readlink()) if self._door.is_symlink() else self._door

    def forget(self) -> None:
        """Leave the server of a former program behind."""
        if self._open:
            self._open.close()
        self._open, self._away_until, self._why = None, 0.0, ""
        self._conversations.clear()
        own = self.socket  # it stays there when Codex is killed
        for file in (own, own.with_name(f"{own.name}.lock"), self._door, self._pid_file):
            file.unlink(missing_ok=True)

    def is_gone(self, find: Callable[[int], psutil.Process] = psutil.Process) -> bool:
        """Whether the program in the pane had a server that runs no more, so that it can do nothing.

        ``find`` finds the process of a number that it has where the server runs.
        """
        if not self.socket.exists():
            return False
        try:
            return find(int(self._pid_file.read_text())).status() == psutil.STATUS_ZOMBIE
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return True

    # ── what it knows ────────────────────────────────────────────────────────────────────────────────────────────

    def conversation(self) -> str:
        """The conversation that the pane shows."""
        with self._understood("thread/loaded/list") as connection:
            loaded = connection.call("thread/loaded/list", {})["data"]
            shown = [name for name in loaded if self._is_a_persons(connection, name)]
        if len(shown) == 1:
            return str(shown[0])
        raise DoorShut(f"it has {len(shown)} conversations open, and does not say which one the pane shows")

    def _is_a_persons(self, connection: _Connection, conversation: str) -> bool:
        """Whether it is none of the program's own, in which it finds a title or has another agent work."""
        if conversation not in self._conversations:
            thread = connection.call("thread/read", {"threadId": conversation})["thread"]
            self._conversations[conversation] = not thread["ephemeral"] and thread["parentThreadId"] is None
        return self._conversations[conversation]

    def state(self, conversation: str) -> AgentState:
        """Whether it is ready, works or waits for an answer there."""
        with self._understood("thread/read") as connection:
            status = connection.call("thread/read", {"threadId": conversation})["thread"]["status"]
            match status["type"]:
                case "idle" | "systemError":  # the last turn failed, and the next may begin
                    return AgentState.READY
                case "active":
                    return AgentState.WAITING if status["activeFlags"] else AgentState.WORKING
            raise ValueError(status)

    def last_turn(self, conversation: str) -> str:
        """The id of the newest turn; empty if there is none."""
        newest = self._turns(conversation, limit=1)
        return str(newest[0]["id"]) if newest else ""

    def turns_since(self, conversation: str, turn: str) -> list[ServerTurn]:
        """The turns after this one, the oldest first, each with its first message and its last answer."""
        limit = _PAGE
        while True:
            newest = self._turns(conversation, limit)
            since = [later for later in newest if str(later["id"]) > turn]  # the ids sort by time
            if len(since) < limit:
                return since[::-1]
            limit *= _PAGE

    def has(self, conversation: str, message: str) -> bool:
        """Whether one of the last turns has the message that Torch gave with this id."""
        turns = self._turns(conversation, _PAGE, items="full")
        return any(item.get("clientId") == message for turn in turns for item in turn["items"])

    def _turns(self, conversation: str, limit: int, items: str = "summary") -> Sequence[ServerTurn]:
        asked = {"threadId": conversation, "limit": limit, "sortDirection": "desc", "itemsView": items}
        with self._understood("thread/turns/list") as connection:
            if not self._has_begun(connection, conversation):
                return []
            turns: Sequence[ServerTurn] = connection.call("thread/turns/list", asked)["data"]
            return turns

    def _has_begun(self, connection: _Connection, conversation: str) -> bool:
        """Whether it has a first turn, and tells this connection what it asks from now on."""
        if conversation in connection.subscribed:
            return True
        log_file = self._outside(Path(connection.call("thread/read", {"threadId": conversation})["thread"]["path"]))
        if not log_file.exists():
            return False
        connection.call("thread/resume", {"threadId": conversation, "excludeTurns": True})
        connection.subscribed.add(conversation)
        return True

    def requests(self, conversation: str) -> list[Message]:
        """The questions that it asks there and that are not answered yet."""
        with self._understood("its requests") as connection:
            self._has_begun(connection, conversation)
            asked = list(connection.requests.values())
            return [request for request in asked if request["params"].get("threadId") == conversation]

    # ── what it does ─────────────────────────────────────────────────────────────────────────────────────────────

    def say(self, conversation: str, message: str, text: str) -> None:
        """Give it a prompt under this id: one more in the turn that goes on, else the first of a new one."""
        words = {"type": "text", "text": text, "text_elements": []}
        asked = {"threadId": conversation, "input": [words], "clientUserMessageId": message}
        with self._understood("turn/start") as connection:
            connection.call("turn/start", asked)

    def answer(self, request: Message, result: Message) -> None:
        """Answer what it asks; the first answer counts."""
        with self._understood("an answer") as connection:
            connection.answer(request["id"], result)

    def interrupt(self, conversation: str) -> None:
        """Interrupt the turn that goes on, if there is one."""
        newest = self._turns(conversation, limit=1)
        if newest and newest[0]["status"] == "inProgress":
            with self._understood("turn/interrupt") as connection:
                connection.call("turn/interrupt", {"threadId": conversation, "turnId": newest[0]["id"]})

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _understood(self, what: str) -> Iterator[_Connection]:
        """The connection; what comes over it in another form than is known shuts the door."""
        try:
            yield self._connection()
        except RequestRefused:
            raise
        except DoorShut as shut:
            raise self._shut(str(shut)) from shut
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._shut(f"it answers {what} in a form that Torch does not know: {error!r}") from error

    def _connection(self) -> _Connection:
        if self._open and self._open.is_alive():
            return self._open
        if time.monotonic() < self._away_until:
            raise DoorShut(self._why)
        if not self.socket.exists():
            raise DoorShut("it does not run")
        connection = _Connection(self.socket, self._on_news)
        try:
            self._shake_hands(connection)
        except BaseException:
            connection.close()
            raise
        self._open = connection
        return connection

    def _shake_hands(self, connection: _Connection) -> None:
        capabilities = {
            "experimentalApi": True,
            "requestAttestation": False,
            "optOutNotificationMethods": list(_UNWANTED),
        }
        client = {"name": "torch", "title": "Torch", "version": "1"}
        said = connection.call("initialize", {"clientInfo": client, "capabilities": capabilities})
        release = _RELEASE.search(said["userAgent"])
        if release is None or Version(release[1]) < OLDEST:
            raise DoorShut(f"it says that it is {said['userAgent']!r}, and Torch knows it from {OLDEST} on")
        connection.tell("initialized", {})

    def _shut(self, why: str) -> DoorShut:
        """Leave a server that cannot be reached alone for a while."""
        if self.socket.exists() and not (self._open and self._open.is_alive()):
            self._away_until = time.monotonic() + _AWAY_SECONDS
        self._why = why
        return DoorShut(why)
