"""The console's paths: its pages, what its forms ask for, and its own files."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from torch_tasks.caller import caller
from torch_tasks.errors import TorchError, UnknownOperation
from torch_tasks.fleet import fleet
from torch_tasks.server.bodies import read_body
from torch_tasks.server.calls import Calls
from torch_tasks.server.console.acting import FilledForm, wants_no_page
from torch_tasks.server.console.board import BOARD
from torch_tasks.server.console.fleet import FLEET
from torch_tasks.server.console.live import LiveStreams
from torch_tasks.server.console.page import ConsolePage, Visit
from torch_tasks.server.console.pages import PAGES
from torch_tasks.server.console.pane_rows import colour_sheet
from torch_tasks.server.console.rendering import Templates
from torch_tasks.server.console.shared import SharedReplies
from torch_tasks.server.events import EventHub
from torch_tasks.server.people.login import local
from torch_tasks.server.people.sessions import Sessions
from torch_tasks.server.problems import problem, status_of
from torch_tasks.settings import Settings
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

STATIC = "/static/"
"""The console's own style, scripts and pictures, which say nothing of the fleet."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
_MEDIA = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "png": "image/png",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}
_FILE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Service-Worker-Allowed": "/",
}
_LONGEST_FORM = 1 << 20
_AT_HAND_SECONDS = 30.0
_NEEDED_SECONDS = 1.0
"""So old may the number be that all pages show of what waits for a person."""


class Console:
    """Answers a browser in which somebody has logged in."""

    def __init__(self, settings: Settings, calls: Calls, sessions: Sessions, hub: EventHub) -> None:
        self._calls, self._sessions = calls, sessions
        self._slow = settings.server_slow_seconds
        self._templates, self._shared = Templates(), SharedReplies()
        self._live = LiveStreams(hub)
        self._is_cold = True
        self.loop = Loop("what the console has at hand", self._be_ready, pause=_AT_HAND_SECONDS)
        self._files = {**_own_files(), "colours.css": colour_sheet().encode()}

    def _be_ready(self) -> None:
        """Nobody who looks waits for what is done once in a process, or has piled up since somebody looked last."""
        if self._is_cold:
            self._templates.compile_all()
            for page in (FLEET, BOARD):
                page.gather(Visit(self._shared))
            self._is_cold = False
        fleet().task_index.entries()

    def routes(self) -> list[BaseRoute]:
        return [
            *(Route(page.path, self._shown(page), name=page.name) for page in PAGES),
            Route("/live", self._live.answer),
            Route("/do/{operation}", self.act, methods=["POST"]),
            Route(f"{STATIC}{{name}}", self.file),
        ]

    def _shown(self, page: ConsolePage) -> Callable[[Request], Awaitable[Response]]:
        async def show(request: Request) -> Response:
            visit = Visit(self._shared, request.path_params, request.query_params)
            values, error = await self._calls.in_thread(lambda: _gathered(page, visit))
            if error:
                return self._page(request, visit, page, "trouble", values | {"trouble": str(error)}, status_of(error))
            return self._page(request, visit, page, page.name, values, 200)

        return show

    async def act(self, request: Request) -> Response:
        """Do what a form asks for; then back to where its person was, or the reason why it was not done."""
        is_script, form = wants_no_page(request), None
        try:
            body = await read_body(request, _LONGEST_FORM, self._slow)
            form = FilledForm.read(request.path_params["operation"], body)
            form.require_proof(self._sessions.proof(request.headers))
            done = await self._calls.in_thread(form.perform)
        except TorchError as error:
            return problem(error) if is_script else await self._refused(request, form, error)
        if is_script:
            return JSONResponse({"said": done.said, "then": done.then})
        return RedirectResponse(local(done.then or form.then), 303)

    async def _refused(self, request: Request, form: FilledForm | None, error: TorchError) -> Response:
        """Why a form was refused, on its own page with what was typed if it has one."""
        page = next((one for one in PAGES if form and one.form_of == form.operation), None)
        visit = Visit(self._shared, {}, form.as_typed if form else {}, str(error))
        if page:
            with suppress(TorchError):
                values = await self._calls.in_thread(lambda: page.gather(visit))
                return self._page(request, visit, page, page.name, values, status_of(error))
        return self._page(request, visit, None, "trouble", {"trouble": str(error)}, status_of(error))

    async def file(self, request: Request) -> Response:
        """A file of the console."""
        name = request.path_params["name"]
        if name not in self._files:
            return problem(UnknownOperation(f"the console has no file {name[:60]!r}"))
        media = _MEDIA[name.rpartition(".")[2]]
        return Response(self._files[name], media_type=media, headers=_FILE_HEADERS)

    def _page(
        self,
        request: Request,
        visit: Visit,
        page: ConsolePage | None,
        template: str,
        values: Mapping[str, Any],
        status: int,
    ) -> Response:
        who = caller()
        frame = {
            "layout": "content.html" if wants_no_page(request) else "whole.html",
            "page": page,
            "menu": [one for one in PAGES if one.in_menu and visit.has(one.right)],
            "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "who": {"name": who.name, "role": who.role or str(who.kind)},
            "proof": self._sessions.proof(request.headers),
            "may": visit.may,
            "needed": None,
        } | dict(values)
        headers = {**_HEADERS, "X-Torch-Needed": str(frame["needed"] or 0)}
        return HTMLResponse(self._templates.render(template, frame), status, headers)


def _gathered(page: ConsolePage, visit: Visit) -> tuple[dict[str, Any], TorchError | None]:
    """What the page shows, or why it cannot; how many things wait for a person in either case."""
    values: dict[str, Any] = {"needed": _needed(visit)}
    try:
        return {**values, **page.gather(visit)}, None
    except TorchError as error:
        return values, error


def _needed(visit: Visit) -> int | None:
    """How many things wait for a person, as every page shows it; None for who may not see it, or if it is not known."""
    with suppress(TorchError):
        return len(visit.needed(_NEEDED_SECONDS))
    return None


def _own_files() -> dict[str, bytes]:
    folder = files("torch_tasks.server.console") / "static"
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.name.rpartition(".")[2] in _MEDIA}
