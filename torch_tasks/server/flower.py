"""Flower behind this server's login: ``/flower/`` is passed on to this machine's own, for who may look.

Flower itself knows one user, and that is the server. So who may press a button is decided here.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.to_thread
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from torch_tasks.caller import caller
from torch_tasks.errors import FlowerAway, TorchError
from torch_tasks.machine.stack import FLOWER_PATH, FLOWER_USER, Stack
from torch_tasks.model.asker import Asker
from torch_tasks.model.audit_record import AuditOutcome
from torch_tasks.security.audit import note_event
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.server.bodies import read_body
from torch_tasks.server.problems import status_of
from torch_tasks.settings import Settings

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

_READING = ("GET", "HEAD")
_READ_BY_POST = f"{FLOWER_PATH}/tasks/datatable"
_TASK = re.compile(rf"{FLOWER_PATH}/api/task/(?:revoke|abort)/(?P<task>[\w.-]+)")
_BUTTONS = (
    (_TASK, (Right.CHANGE,)),
    (re.compile(rf"{FLOWER_PATH}/api/task/(?:apply|async-apply|send-task)/.*"), (Right.ENQUEUE, Right.GRANT)),
)
"""What a button takes; any other one is about a worker, and takes the right to hold."""
_PASSED = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-type", "if-none-match", "if-modified-since"}
)
_RETURNED = frozenset(
    {"content-type", "content-encoding", "content-length", "etag", "last-modified", "cache-control", "location", "vary"}
)


_OWN_SCRIPT = base64.b64encode(hashlib.sha256(b"\nvar autorefresh = 1;\n").digest()).decode()
"""The only script that Flower writes into a page: any other one would be what somebody smuggled into a task."""
_POLICY = (
    f"default-src 'self'; script-src 'self' 'sha256-{_OWN_SCRIPT}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class FlowerDoor:
    """Passes on what a caller may ask Flower."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._stack = settings, Stack(settings)
        self._client: httpx2.AsyncClient | None = None

    def routes(self) -> list[BaseRoute]:
        methods = ["GET", "POST"]
        return [Route(FLOWER_PATH, _into), Route(f"{FLOWER_PATH}/{{rest:path}}", self.pass_on, methods=methods)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        import httpx2

        async with httpx2.AsyncClient(trust_env=False, timeout=httpx2.Timeout(60, connect=5)) as client:
            self._client = client
            yield

    async def pass_on(self, request: Request) -> Response:
        """Flower's reply; a refusal is plain text, which Flower's own pages show."""
        try:
            path = request.scope["raw_path"].decode("ascii", "replace")
            await anyio.to_thread.run_sync(_require, request.method, path)
            return await self._asked(request, path)
        except TorchError as error:
            return PlainTextResponse(str(error), status_of(error))

    async def _asked(self, request: Request, path: str) -> Response:
        import httpx2

        assert self._client
        address, password = await anyio.to_thread.run_sync(self._own)
        body = await read_body(request, self._settings.server_request_bytes, self._settings.server_slow_seconds)
        asked = self._client.build_request(
            request.method,
            httpx2.URL(address).copy_with(raw_path=path.encode() + _query(request)),
            headers={name: value for name, value in request.headers.items() if name in _PASSED},
            content=body,
        )
        try:
            reply = await self._client.send(asked, auth=(FLOWER_USER, password), stream=True)
        except httpx2.HTTPError as error:
            raise FlowerAway(f"this machine's Flower does not answer: {error or type(error).__name__}") from None
        if reply.status_code == 401:
            await reply.aclose()
            raise FlowerAway(
                "this machine's Flower runs with another password; 'torch-tasks down' and 'up' start it anew"
            )
        if request.method not in _READING and path != _READ_BY_POST:
            await anyio.to_thread.run_sync(_note, path, reply.status_code)
            log.info("%s pressed %s in Flower: %d", caller().name, path, reply.status_code)
        headers = {**_kept(reply.headers), "Content-Security-Policy": _POLICY, "X-Frame-Options": "DENY"}
        return StreamingResponse(reply.aiter_raw(), reply.status_code, headers, background=BackgroundTask(reply.aclose))

    def _own(self) -> tuple[str, str]:
        running = self._stack.processes.find("flower")
        if running is None:
            raise FlowerAway("this machine runs no Flower; 'torch-tasks up' starts one")
        return running.facts["url"], self._stack.flower_password()[0]


async def _into(_: Request) -> Response:
    return RedirectResponse(f"{FLOWER_PATH}/", 303)


def _require(method: str, path: str) -> None:
    """Raise :class:`NotAllowed` unless the caller may do what Flower would."""
    require("flower.look", Right.LOOK, Subject())
    if method in _READING or path == _READ_BY_POST:
        return
    found = next(((match, rights) for form, rights in _BUTTONS if (match := form.fullmatch(path))), None)
    match, rights = found or (None, (Right.HOLD,))
    subject = Subject(task=match.groupdict().get("task")) if match else Subject()
    for right in rights:
        require("flower.press", right, subject)


def _note(path: str, status: int) -> None:
    outcome = AuditOutcome.DONE if status < 400 else AuditOutcome.FAILED
    note_event("flower.press", path, who=Asker.now(), why=f"Flower answered {status}", outcome=outcome)


def _query(request: Request) -> bytes:
    query: bytes = request.scope["query_string"]
    return b"?" + query if query else b""


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() in _RETURNED}
