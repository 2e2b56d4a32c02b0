"""What every request passes first: its form, its Host and Origin, its token; and the line in the log about it."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Iterable
from functools import partial
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torch_tasks.caller import Caller, acting_as
from torch_tasks.errors import InternalFault, NotAuthenticated, RequestNotTaken, ServerBusy, TorchError
from torch_tasks.server.measures import count_request
from torch_tasks.server.people.login import OPEN as LOGIN
from torch_tasks.server.people.pages import fault_page
from torch_tasks.server.people.sessions import Sessions
from torch_tasks.server.problems import problem
from torch_tasks.server.tokens import AccessTokens
from torch_tasks.visible_text import one_line

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
OPEN = frozenset({"/healthz", "/readyz", "/api/openapi.json"})
"""What needs no token: it says nothing of the fleet's work."""
_OPEN_FILES = "/static/"
_FOR_PROGRAMS = ("/api/", "/mcp")
"""What begins so is no page for people."""
_NOBODY = "nobody"
_READING = ("GET", "HEAD")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Entrance:
    """Lets in what may come in, as the caller that its token or its login names; anything else gets a problem document.

    A page of another site cannot ask: its requests are refused by their Origin, and what a browser's login would change
    is asked for only with the Origin of this server's own pages. A name of somebody else's that is made to lead here
    (DNS rebinding) is refused by its Host.
    """

    def __init__(self, app: ASGIApp, tokens: AccessTokens, sessions: Sessions, names: Iterable[str], most: int) -> None:
        self._app = app
        self._tokens = tokens
        self._sessions = sessions
        self._names = {"localhost", *(name.lower() for name in names)}
        self._most = most
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(scope, send)
        try:
            caller = await self._let_in(scope, visit.headers)
        except TorchError as error:
            await _refusal(scope, visit.headers, error)(scope, receive, visit.send)
            visit.note()
            return
        visit.caller = caller
        scope["state"]["still_let_in"] = partial(self._is_let_in, visit.headers)
        self._inside += 1
        try:
            with acting_as(caller):
                await self._app(scope, receive, visit.send)
        except Exception:
            log.exception("request %s failed", visit.id)
            if visit.status:  # what was begun cannot be taken back: the connection is cut
                raise
            fault = InternalFault(
                f"the server failed at request {visit.id} in a way that was not foreseen; see its log"
            )
            reply = fault_page(str(fault)) if _wants_page(scope, visit.headers) else problem(fault)
            await reply(scope, receive, visit.send)
        finally:
            self._inside -= 1
            visit.note()

    async def _let_in(self, scope: Scope, headers: Headers) -> Caller:
        self._check_host(headers)
        self._check_origin(scope, headers)
        if _is_open(scope["path"]):
            return Caller(role=_NOBODY)
        if self._inside >= self._most:
            raise ServerBusy(f"the server serves {self._most} requests already (TORCH_SERVER_REQUESTS); ask again")
        visitor = None if "authorization" in headers else self._sessions.of(headers)
        if visitor is None:
            return self._bearer(headers)
        if scope["method"] not in _READING and "origin" not in headers:
            raise RequestNotTaken("with a login, changes are asked for by this server's own pages: there is no Origin")
        await visitor.confirm()
        return visitor.caller

    def _bearer(self, headers: Headers) -> Caller:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NotAuthenticated(
                "this server wants a token: 'Authorization: Bearer TOKEN'; 'torch-tasks token create' makes one; "
                "people log in at /login"
            )
        return self._tokens.bearer_of(token.strip())

    def _is_let_in(self, headers: Headers) -> bool:
        try:
            visitor = None if "authorization" in headers else self._sessions.of(headers)
            _ = visitor.caller if visitor else self._bearer(headers)
        except TorchError:
            return False
        return True

    def _check_host(self, headers: Headers) -> None:
        given = headers.getlist("host")
        name = _name_in(given[0]) if len(given) == 1 else None
        if name is None or not (name in self._names or _is_address(name)):
            asked = one_line(", ".join(given), 80) or "nothing"
            raise RequestNotTaken(
                f"this server does not answer to {asked}; TORCH_SERVER_NAMES lists what it does answer to"
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
            raise RequestNotTaken(f"requests from pages of {one_line(origin, 80)} are not taken")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not _is_arrival(
            scope, headers
        ):
            raise RequestNotTaken("requests from pages of other sites are not taken")


class _Visit:
    """One request and what came of it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.headers = Headers(scope=scope)
        given = self.headers.get(REQUEST_ID, "")
        self.id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        self.caller: Caller | None = None
        self.status = 0
        self._scope, self._send, self._begun = scope, send, time.monotonic()
        scope.setdefault("state", {})

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self.id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    def note(self) -> None:
        """Log the request: without its query, which may hold what only its sender should read."""
        scope, seconds = self._scope, time.monotonic() - self._begun
        took = seconds * 1000
        who = self.caller.name if self.caller and self.caller.role != _NOBODY else "-"
        level = logging.DEBUG if _is_open(scope["path"]) and self.status < 400 else logging.INFO
        line = one_line(f"{scope['method']} {scope['path']}", 200)
        log.log(level, "%s %s %s %d in %.0f ms", self.id, who, line, self.status, took)
        count_request(scope["path"], self.status, seconds)


def _is_arrival(scope: Scope, headers: Headers) -> bool:
    """Whether a person comes to a page by a link elsewhere, or back from the provider: in a window of its own."""
    how = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return how == ("navigate", "document") and _is_page(scope)


def _is_open(path: str) -> bool:
    return path in OPEN or path in LOGIN or path.startswith(_OPEN_FILES)


def _is_page(scope: Scope) -> bool:
    return scope["method"] in _READING and not _is_for_programs(scope)


def _is_for_programs(scope: Scope) -> bool:
    return f"{scope['path']}/".startswith(_FOR_PROGRAMS)


def _wants_page(scope: Scope, headers: Headers) -> bool:
    """Whether a browser asks, for what its person is to read."""
    accepts = "text/html" in headers.get("accept", "") and "authorization" not in headers
    return accepts and not _is_for_programs(scope)


def _refusal(scope: Scope, headers: Headers, error: TorchError) -> Response:
    """A person is shown where to log in; a program gets the problem."""
    if isinstance(error, NotAuthenticated) and _wants_page(scope, headers) and _is_page(scope):
        query = scope["query_string"].decode("ascii", "replace")
        wanted = scope["path"] + (f"?{query}" if query else "")
        return RedirectResponse(f"/login?{urlencode({'next': wanted})}", 303)
    return problem(error)


def _name_in(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
