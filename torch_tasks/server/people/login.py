"""Logging in and out: ``/login``, what comes back from the provider, ``/logout``."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from torch_tasks.caller import caller
from torch_tasks.errors import LoginRefused, RequestNotTaken, TorchError
from torch_tasks.model.asker import Asker
from torch_tasks.model.audit_record import AuditOutcome
from torch_tasks.security.audit import note_event
from torch_tasks.server.bodies import read_body
from torch_tasks.server.people.pages import login_page, own_page
from torch_tasks.server.people.provider import OpenIdProvider
from torch_tasks.server.people.sessions import Sessions, TokenHolder, Visitor, VouchedPerson, cookie_in, set_cookie
from torch_tasks.server.problems import problem, status_of
from torch_tasks.server.tokens import AccessTokens
from torch_tasks.settings import Settings
from torch_tasks.visible_text import one_line

log = logging.getLogger(__name__)

CALLBACK = "/login/callback"
OPEN = frozenset({"/login", "/login/provider", "/login/link", CALLBACK, "/logout"})
"""What is asked by who is not logged in yet."""
_LONGEST_FORM = 4096
_PENDING_SECONDS = 600
LINKS = "/login/links"
"""Where the bearer of a token asks for a link."""
_LINK_SECONDS = 60
_MOST_PENDING = 1000
_Kept = TypeVar("_Kept")


@dataclass(frozen=True)
class PendingLogin:
    """What this server remembers while a person is at the provider."""

    back_to: str
    """Where the provider sends the browser."""
    then: str
    """Where the person wanted to go."""
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    until: float = field(default_factory=lambda: time.monotonic() + _PENDING_SECONDS)


@dataclass(frozen=True)
class LoginLink:
    """What this server remembers of a link until it is used."""

    holder: TokenHolder
    then: str
    until: float = field(default_factory=lambda: time.monotonic() + _LINK_SECONDS)


class LoginDoors:
    """The doors by which a person comes in, each of which begins a session."""

    def __init__(
        self, settings: Settings, tokens: AccessTokens, sessions: Sessions, provider: OpenIdProvider | None
    ) -> None:
        self._tokens, self._sessions, self._provider = tokens, sessions, provider
        self._public = (settings.server_public_url or "").rstrip("/")
        self._refresh_seconds = settings.oidc_refresh_seconds
        self._slow = settings.server_slow_seconds
        self._pending: dict[str, PendingLogin] = {}
        self._links: dict[str, LoginLink] = {}
        self._cookie = f"{sessions.cookie}-login"

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/me", self.own),
            Route("/login", self.show, methods=["GET"]),
            Route("/login", self._or_page(self.with_token), methods=["POST"]),
            Route(LINKS, self.make_link, methods=["POST"]),
            Route("/login/link", self._or_page(self.with_link), methods=["GET"]),
            Route("/login/provider", self._or_page(self.to_provider), methods=["GET"]),
            Route(CALLBACK, self._or_page(self.from_provider), methods=["GET"]),
            Route("/logout", self.leave, methods=["POST"]),
        ]

    async def own(self, request: Request) -> Response:
        """Who is logged in."""
        who = caller()
        return own_page(who.name, who.role or str(who.kind), self._sessions.of(request.headers) is not None)

    async def show(self, request: Request) -> Response:
        return self._page(local(request.query_params.get("next")))

    async def with_token(self, request: Request) -> Response:
        """A person shows a token once instead of with each request."""
        body = await read_body(request, _LONGEST_FORM, self._slow)
        fields = parse_qs(body.decode(errors="replace"))
        then = local(fields.get("next", ["/"])[0])
        try:
            return await self._begun(TokenHolder(self._tokens, fields.get("token", [""])[0].strip()), "a token", then)
        except TorchError as error:
            return self._refused(error, then)

    async def make_link(self, request: Request) -> Response:
        """For the bearer of a token: a link with which a browser logs in as its bearer, once, within a minute."""
        try:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                raise RequestNotTaken(
                    "a link is made for who asks with a token; this browser is logged in already", 403
                )
            body = await read_body(request, _LONGEST_FORM, self._slow)
            then = local(parse_qs(body.decode(errors="replace")).get("next", ["/"])[0])
        except TorchError as error:
            return problem(error)
        code = _remember(self._links, LoginLink(TokenHolder(self._tokens, token.strip()), then))
        here = self._public or f"{request.url.scheme}://{request.headers['host']}"
        return JSONResponse({"url": f"{here}/login/link?{urlencode({'code': code})}"})

    async def with_link(self, request: Request) -> Response:
        """A person comes by a link that was made for them."""
        link = self._links.pop(request.query_params.get("code", ""), None)
        if link is None or link.until < time.monotonic():
            raise LoginRefused(
                "this link has been used, or is older than a minute; 'torch-tasks console' prints another one"
            )
        return await self._begun(link.holder, "a link", link.then)

    async def to_provider(self, request: Request) -> Response:
        """Send the browser to the provider, and remember with what."""
        then, host = local(request.query_params.get("next")), request.headers["host"]
        if self._public and urlsplit(self._public).netloc.lower() != host.lower():
            elsewhere = f"{self._public}/login" + (f"?{urlencode({'next': then})}" if then != "/" else "")
            return RedirectResponse(elsewhere, 303)  # a cookie would not come back with the person
        back_to = f"{self._public or f'{request.url.scheme}://{host}'}{CALLBACK}"
        pending = PendingLogin(back_to, then)
        try:
            if self._provider is None:
                raise LoginRefused("this server has no provider to log in at (TORCH_OIDC_ISSUER); log in with a token")
            address = await self._provider.address(back_to, pending.state, pending.nonce, pending.verifier)
        except TorchError as error:
            return self._refused(error, then)
        key, response = _remember(self._pending, pending), RedirectResponse(address, 303)
        set_cookie(response, self._cookie, key, self._sessions.is_encrypted, _PENDING_SECONDS)
        return response

    async def from_provider(self, request: Request) -> Response:
        """A person comes back: only to the login that this browser began, and only once."""
        pending = self._pending.pop(cookie_in(request.headers, self._cookie) or "", None)
        if self._provider is None or pending is None:
            raise LoginRefused("this browser has begun no such login, or it has been used; log in again")
        try:
            return await self._vouched_for(request, self._provider, pending)
        except TorchError as error:
            return self._refused(error, pending.then)

    async def _vouched_for(self, request: Request, provider: OpenIdProvider, pending: PendingLogin) -> Response:
        """Begin the session of whom the provider vouches for."""
        asked = request.query_params
        if pending.until < time.monotonic():
            raise LoginRefused("this login was begun too long ago; log in again")
        if not hmac.compare_digest(pending.state.encode(), asked.get("state", "").encode(errors="replace")):
            raise LoginRefused("what came back is not for the login that this browser began; log in again")
        if asked.get("iss", provider.issuer) != provider.issuer:
            raise LoginRefused("what came back is from another provider; log in again")
        if "code" not in asked:
            said = asked.get("error_description") or asked.get("error") or "no code came back"
            raise LoginRefused(f"the provider refuses the login: {one_line(said, 200)}")
        vouched = await provider.redeem(asked["code"], pending.back_to, pending.verifier, pending.nonce)
        account = f"account {one_line(str(vouched.claims['sub']), 100)} of {provider.issuer}"
        try:
            person = VouchedPerson(provider, vouched, self._refresh_seconds)
        except LoginRefused as error:
            await _note(account, outcome=AuditOutcome.REFUSED, why=str(error))
            raise
        return await self._begun(person, account, pending.then)

    async def leave(self, request: Request) -> Response:
        response = RedirectResponse("/login", 303)
        self._sessions.end(request.headers, response)
        return response

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _begun(self, visitor: Visitor, by: str, then: str) -> Response:
        who = visitor.caller
        await _note(by, who=Asker.of(who))
        log.info("%s logged in as %s, by %s", who.name, who.role or who.kind, by)
        response = RedirectResponse(then, 303)
        self._sessions.begin(visitor, response)
        set_cookie(response, self._cookie, "", self._sessions.is_encrypted, 0)
        return response

    def _page(self, then: str, refused: str = "", status: int = 200) -> Response:
        provider = urlsplit(self._provider.issuer).netloc if self._provider else None
        return login_page(provider, then, refused, status)

    def _refused(self, error: TorchError, then: str) -> Response:
        log.warning("a login is refused: %s", error)
        return self._page(then, str(error), status_of(error))

    def _or_page(self, act: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The act, or the page that says why not and lets the person try again."""

        async def acted(request: Request) -> Response:
            try:
                return await act(request)
            except TorchError as error:
                return self._refused(error, "/")

        return acted


def _remember(kept: dict[str, _Kept], one: _Kept) -> str:
    """Keep it for a while; returns the secret by which it is found."""
    while len(kept) >= _MOST_PENDING:
        del kept[next(iter(kept))]
    key = secrets.token_urlsafe(32)
    kept[key] = one
    return key


async def _note(by: str, **how: Any) -> None:
    await anyio.to_thread.run_sync(partial(note_event, "person.login", by, **how))


def local(path: str | None) -> str:
    """A page of this server; never an address elsewhere, however it is written."""
    if not path or not path.isprintable() or "\\" in path or not path.startswith("/") or path.startswith("//"):
        return "/"
    return path
